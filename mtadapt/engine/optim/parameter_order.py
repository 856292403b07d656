"""The state of optimizers and schedules by the names of the parameters.

PyTorch's state has numbers in place of names, in the order of the model. That order is the one of the config's tasks,
and a config that MMEngine has dumped has them in the order of the alphabet, whatever it was in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.optim import OptimWrapperDict
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mtadapt.errors import MTAdaptError

#: Names of the parameters of each group.
Groups = list[list[str]]


def parameter_groups(wrapper: Any, model: nn.Module) -> dict[str, Groups] | None:
    """The names of the parameters in their order, for each optimizer.

    Args:
        wrapper: MMEngine's optimizer wrapper, or a dictionary of them.
        model: whose parameters they are.

    Returns:
        Name of the optimizer, empty for a single one, to its groups; None where an optimizer has parameters of its own,
        as DeepSpeed's, or a state with names, as FSDP's.
    """
    if isinstance(model, FullyShardedDataParallel):
        return None
    names = {parameter: name.removeprefix("module.") for name, parameter in model.named_parameters()}
    found = {}
    for part, each in _parts(wrapper):
        groups = each.optimizer.param_groups
        if not all(parameter in names for group in groups for parameter in group["params"]):
            return None
        found[part] = [[names[parameter] for parameter in group["params"]] for group in groups]
    return found


def reorder_state(checkpoint: dict[str, Any], saved: Mapping[str, Groups], own: Mapping[str, Groups]) -> bool:
    """Put the state of optimizers and schedules into the order of a model.

    Args:
        checkpoint: of MMEngine; its ``optimizer`` and ``param_schedulers`` are changed.
        saved: :func:`parameter_groups` when it was written.
        own: those of the model that resumes.

    Returns:
        Whether the order was another one.

    Raises:
        MTAdaptError: when other parameters are trained, or in other groups.
    """
    if dict(saved) == dict(own):
        return False
    for part in {**saved, **own}:
        before = {frozenset(group): number for number, group in enumerate(saved.get(part, []))}
        if set(before) != {frozenset(group) for group in own.get(part, [])}:
            raise MTAdaptError(_other_parameters(saved.get(part, []), own.get(part, [])))
        places = [before[frozenset(group)] for group in own[part]]
        state = checkpoint["optimizer"][part] if part else checkpoint["optimizer"]
        state["param_groups"] = [
            _group(state["param_groups"][place], saved[part][place], names)
            for place, names in zip(places, own[part], strict=True)
        ]
        schedules: Any = checkpoint.get("param_schedulers") or {}
        for schedule in schedules.get(part, []) if part else schedules:
            _reorder_schedule(schedule, places)
    return True


def _parts(wrapper: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(wrapper, OptimWrapperDict):
        yield from wrapper.items()
    else:
        yield "", wrapper


def _group(group: Mapping[str, Any], saved: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    numbers = dict(zip(saved, group["params"], strict=True))
    return {**group, "params": [numbers[name] for name in names]}


def _reorder_schedule(schedule: dict[str, Any], places: Sequence[int]) -> None:
    """A schedule has a value for each group, and one behind them that MMEngine adds where there are several."""
    for key, value in schedule.items():
        if isinstance(value, list) and len(value) >= len(places) > 1 and key in ("base_values", "_last_value"):
            schedule[key] = [value[place] for place in places] + value[len(places) :]


def _other_parameters(saved: Groups, own: Groups) -> str:
    before, now = ({name for group in groups for name in group} for groups in (saved, own))
    for less, more, text in ((before, now, "is trained now and was not"), (now, before, "was trained and is not now")):
        if more - less:
            first = min(more - less)
            return f"the checkpoint's optimizer has other parameters: {first} {text}; resume with the config of the run"
    return "the checkpoint's optimizer has its parameters in other groups; resume with the paramwise_cfg of the run"
