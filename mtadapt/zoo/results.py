"""What a run of the benchmark leaves behind: one small JSON file, from which the report is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError

#: Name of the file in the folder of a run.
RESULT = "result.json"
#: What a run is for: it makes a checkpoint, trains all tasks together, or trains one task alone.
KINDS = ("pretrain", "multi_task", "single_task")
#: What a file must have to be one.
_REQUIRED = {"zoo", "kind", "checkpoint", "paradigm", "label_setting", "seed", "status"}


@dataclass(frozen=True)
class CellResult:
    """One cell of the grid after its run.

    Args:
        zoo: name of the benchmark.
        kind: one of :data:`KINDS`.
        checkpoint: name of the checkpoint in the zoo file.
        paradigm: name of the paradigm, or of the single-task baseline, which is its task's; ``pretrain`` for the
            training that makes a checkpoint.
        label_setting: name of the label setting; empty for ``pretrain``.
        seed: of the run.
        status: ``finished`` or ``failed``.
        attempts: number of times that it was started, by all calls of the tool together.
        tasks: whose metrics it reports.
        metrics: ``task/name`` to the value of the last validation, as the metrics report them.
        seconds: of training with its validations, of all attempts that were resumed, on one device.
        devices: processes that trained.
        device: what they ran on, e.g. ``cpu`` or the name of the GPU.
        parameters: of the model.
        trainable: stage to the parameters that train in it; an ordinary run has the one stage ``train``.
        weights: report of the checkpoint's loading, see :class:`mtadapt.zoo.LoadReport`; None for random weights.
        config: the config of the run, relative to the file.
        log: the log of the run, relative to the file.
        error: last line of the log of a run that failed.
        protocol: of the benchmark, in the words of the zoo file.
        reference: name of the checkpoint that the others are compared with; empty where the zoo file names none.
        source: of the checkpoint, a paper or a page in the words of the zoo file.
    """

    zoo: str
    kind: str
    checkpoint: str
    paradigm: str
    label_setting: str
    seed: int
    status: str
    attempts: int = 1
    tasks: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    devices: int = 1
    device: str = "cpu"
    parameters: int = 0
    trainable: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    config: str = "config.py"
    log: str = "output.txt"
    error: str | None = None
    protocol: str = ""
    reference: str = ""
    source: str = ""

    @property
    def device_hours(self) -> float:
        """Seconds times devices, in hours."""
        return self.seconds * self.devices / 3600

    def write(self, folder: Path) -> None:
        """Write the file into the folder of the run."""
        write_atomically(folder / RESULT, (json.dumps(asdict(self), indent=1) + "\n").encode())


def read_result(path: Path) -> CellResult:
    """Read what :meth:`CellResult.write` wrote.

    Raises:
        MTAdaptError: when it is no such file.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MTAdaptError(f"{path}: no result of a run ({error})") from error
    known = {entry.name for entry in fields(CellResult)}
    if not isinstance(content, dict) or not _REQUIRED <= set(content) <= known:
        raise MTAdaptError(f"{path}: no result of a run of tools/benchmark_pretrained.py")
    if content["kind"] not in KINDS or content["status"] not in ("finished", "failed"):
        raise MTAdaptError(f"{path}: kind={content['kind']!r}, status={content['status']!r} are unknown")
    return CellResult(**{**content, "tasks": tuple(content.get("tasks", ()))})


def read_results(folder: Path) -> dict[Path, CellResult]:
    """All results below a folder, by the path of their files.

    Raises:
        MTAdaptError: when there is none, or one cannot be read.
    """
    found = {path: read_result(path) for path in sorted(folder.rglob(RESULT))}
    if not found:
        raise MTAdaptError(f"{folder}: holds no {RESULT}; run tools/benchmark_pretrained.py first")
    return found
