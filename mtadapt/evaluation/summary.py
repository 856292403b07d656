"""One table over all tasks for the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prettytable import PrettyTable

# Ours: the number that stands for a task, and the one to read beside it, by the first name that the task has.
MAIN = {
    "bbox_mAP": "bbox_mAP_50",
    "segm_mAP": "segm_mAP_50",
    "official_mIoU": "strict_mIoU",
    "mIoU": "aAcc",
    "mAP": "mAP_50",
    "top1": "top5",
    "multi-label/mAP": "",
}


def format_table(metrics: Mapping[str, Any]) -> str:
    """Format the numbers of all tasks: a table of the main ones, then all of them, a line a task.

    The numbers stay as the metrics report them: AP is a fraction, IoU and accuracy are in percent.

    Args:
        metrics: ``task/name`` -> number, as ``MultiTaskMetric.evaluate`` returns it. A key without a slash is listed
            below the table only.

    Returns:
        str: Several lines, without a final newline.
    """
    tasks: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for key, value in metrics.items():
        task, slash, name = key.partition("/")
        if slash:
            tasks.setdefault(task, {})[name] = value
        else:
            rest[key] = value
    table = PrettyTable(["task", "metric", "value", "beside it", "its value"])
    for name in table.field_names:
        table.align[name] = "r" if "value" in name else "l"
    for task, numbers in tasks.items():
        main = next((name for name in MAIN if name in numbers), next(iter(numbers)))
        second = MAIN.get(main, "")
        beside = (second, _format(numbers[second])) if second in numbers else ("", "")
        table.add_row([task, main, _format(numbers[main]), *beside])
    lines = [table.get_string()] if tasks else ["no task has numbers"]
    for title, numbers in [*tasks.items(), ("other", rest)]:
        if numbers:
            lines.append(f"{title}: " + "  ".join(f"{name} {_format(value)}" for name, value in numbers.items()))
    return "\n".join(lines)


def _format(value: Any) -> str:
    """Format a number with the digits that matter on its scale, anything else as it is."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:.3f}" if abs(number) <= 1 else f"{number:.2f}"
