"""The YAML file that describes a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtadapt.datasets.label_settings import DEFAULT_COUNTS
from mtadapt.zoo.benchmark.located_yaml import Field, read_yaml

_ZOO = (
    "name",
    "protocol",
    "work_dir",
    "seeds",
    "label_settings",
    "options",
    "paradigms",
    "single_task",
    "hardware",
    "reference",
    "checkpoints",
)
_CHECKPOINT = ("name", "checkpoint", "pretrain", "sha256", "prefix", "min_match", "backbone", "options", "source")
_OF_A_FILE = ("sha256", "prefix", "min_match")
LABEL_SETTINGS = ("full", *DEFAULT_COUNTS)


@dataclass(frozen=True)
class Training:
    """A config and what the zoo file changes in it.

    Args:
        name: of the paradigm, of the task of a single-task baseline, or ``pretrain``.
        config: its file.
        where: ``FILE:LINE`` in the zoo file.
        options: dotted keys of the config to their values.
    """

    name: str
    config: Path
    where: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Checkpoint:
    """A backbone's start.

    Args:
        name: unique in the file.
        where: ``FILE:LINE`` in the zoo file.
        source: a file, the folder of a training, a URL, ``package:NAME``, or None for random weights.
        pretrain: the training that makes it, instead of a source.
        sha256: of the file, or its first digits.
        sha256_where: ``FILE:LINE`` of the hash.
        prefix: what stands before the backbone's names in the file.
        min_match: least share of the backbone that the file must have.
        backbone: config of the backbone, instead of the paradigms'.
        options: for the transfers from this checkpoint.
        cited: where it comes from, in words.
    """

    name: str
    where: str
    source: str | None = None
    pretrain: Training | None = None
    sha256: str | None = None
    sha256_where: str = ""
    prefix: str | None = None
    min_match: float | None = None
    backbone: Mapping[str, Any] | None = field(default=None, hash=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    cited: str = ""


@dataclass(frozen=True)
class Zoo:
    """A benchmark: checkpoints times paradigms times label settings times seeds.

    Args:
        path: of the file.
        name: of the benchmark.
        protocol: in words, for the report.
        work_dir: folder of the runs.
        seeds: of the runs.
        label_settings: names of label settings.
        options: dotted keys of every transfer's config to their values.
        paradigms: trainings of all tasks.
        single_task: trainings of one task each, named after it.
        checkpoints: what they start from.
        gpus: devices of a run, for the estimate.
        tflops: sustained by one device, for the estimate; None where it is not known.
        reference: name of the checkpoint that the others are compared with.
    """

    path: Path
    name: str
    protocol: str
    work_dir: Path
    seeds: tuple[int, ...]
    label_settings: tuple[str, ...]
    options: Mapping[str, Any]
    paradigms: tuple[Training, ...]
    single_task: tuple[Training, ...]
    checkpoints: tuple[Checkpoint, ...]
    gpus: int = 1
    tflops: float | None = None
    reference: str = ""


def read_zoo(path: Path) -> Zoo:
    """Read a zoo file and check its fields and the configs and files that it names.

    Paths in it are relative to the working directory, as those in configs are.

    Raises:
        MTAdaptError: ``FILE:LINE: what is wrong``.
    """
    top = read_yaml(path)
    fields = top.fields(_ZOO, required=("name", "paradigms", "checkpoints"))
    name = fields["name"].identifier()
    checkpoints = _checkpoints(fields["checkpoints"])
    hardware = fields["hardware"].fields(("gpus", "tflops")) if "hardware" in fields else {}
    reference = ""
    if "reference" in fields:
        reference = fields["reference"].identifier()
        if reference not in checkpoints:
            raise fields["reference"].error(
                f"reference: {reference!r} is no checkpoint of the file; it has {', '.join(checkpoints)}"
            )
    return Zoo(
        path=path,
        name=name,
        protocol=fields["protocol"].text() if "protocol" in fields else "",
        work_dir=Path(fields["work_dir"].text()) if "work_dir" in fields else Path("work_dirs", f"zoo_{name}"),
        seeds=_seeds(fields.get("seeds")),
        label_settings=_label_settings(fields.get("label_settings")),
        options=_options(fields.get("options")),
        paradigms=_trainings(fields["paradigms"]),
        single_task=_trainings(fields["single_task"]) if "single_task" in fields else (),
        checkpoints=tuple(checkpoints.values()),
        gpus=hardware["gpus"].whole(1) if "gpus" in hardware else 1,
        tflops=hardware["tflops"].number() if "tflops" in hardware else None,
        reference=reference,
    )


def _seeds(given: Field | None) -> tuple[int, ...]:
    return (0,) if given is None else tuple(_distinct(given, [(each, each.whole()) for each in given.items()]))


def _label_settings(given: Field | None) -> tuple[str, ...]:
    if given is None:
        return ("full",)
    names = _distinct(given, [(each, each.text()) for each in given.items()])
    for each, name in zip(given.items(), names, strict=True):
        if name not in LABEL_SETTINGS:
            raise each.error(f"{each.name}: unknown label setting {name!r}; known: {', '.join(LABEL_SETTINGS)}")
    return tuple(names)


def _distinct(given: Field, values: Sequence[tuple[Field, Any]]) -> list[Any]:
    seen: list[Any] = []
    for entry, value in values:
        if value in seen:
            raise entry.error(f"{given.name}: {value!r} stands twice; leave one out")
        seen.append(value)
    return seen


def _options(given: Field | None) -> dict[str, Any]:
    return {} if given is None else {key: entry.plain() for key, entry in given.entries().items()}


def _trainings(given: Field) -> tuple[Training, ...]:
    if not given.entries():
        raise given.error(f"{given.name} is empty; name at least one config, or leave the field out")
    made = []
    for name, entry in given.entries().items():
        Field(entry.where, f"a name in {given.name}", name).identifier()
        made.append(_training(name, entry))
    return tuple(made)


def _training(name: str, given: Field) -> Training:
    """A config alone, or a mapping with ``config`` and ``options``."""
    if isinstance(given.value, dict):
        fields = given.fields(("config", "options"), required=("config",))
        config, options = fields["config"], _options(fields.get("options"))
    else:
        config, options = given, {}
    path = Path(config.text())
    if not path.is_file():
        raise config.error(f"{config.name}: {path} is no file; paths are relative to the working directory")
    return Training(name, path, config.where, options)


def _checkpoints(given: Field) -> dict[str, Checkpoint]:
    made: dict[str, Checkpoint] = {}
    for entry in given.items():
        fields = entry.fields(_CHECKPOINT, required=("name",))
        checkpoint = _checkpoint(entry, fields)
        if checkpoint.name in made:
            first = made[checkpoint.name].where
            raise fields["name"].error(f"checkpoint {checkpoint.name!r} is there already, at {first}; rename one")
        made[checkpoint.name] = checkpoint
    return made


def _checkpoint(entry: Field, fields: Mapping[str, Field]) -> Checkpoint:
    name = fields["name"].identifier()
    if ("checkpoint" in fields) == ("pretrain" in fields):
        raise entry.error(f"checkpoint {name!r}: write either checkpoint (null for random weights) or pretrain")
    source = fields.get("checkpoint")
    random = source is None or source.value is None
    for key in _OF_A_FILE[: 1 if source is None else None]:
        if random and key in fields:
            raise fields[key].error(f"checkpoint {name!r} is no file that could have a {key}; leave it out")
    if source is not None and not random:
        path = source.text()
        if "://" not in path and not path.startswith("package:") and not Path(path).exists():
            raise source.error(
                f"checkpoint {name!r}: {path}: no such file; paths are relative to the working directory"
            )
    return Checkpoint(
        name=name,
        where=entry.where,
        source=None if random or source is None else source.text(),
        pretrain=_training("pretrain", fields["pretrain"]) if "pretrain" in fields else None,
        sha256=fields["sha256"].text() if "sha256" in fields else None,
        sha256_where=fields["sha256"].where if "sha256" in fields else "",
        prefix=_prefix(fields.get("prefix")),
        min_match=fields["min_match"].number(1.0) if "min_match" in fields else None,
        backbone=_backbone(fields.get("backbone")),
        options=_options(fields.get("options")),
        cited=fields["source"].text() if "source" in fields else "",
    )


def _prefix(given: Field | None) -> str | None:
    if given is None:
        return None
    # An empty prefix says that the names of the backbone stand in the file as they are.
    return "" if given.value == "" else given.text()


def _backbone(given: Field | None) -> dict[str, Any] | None:
    if given is None:
        return None
    if "type" not in given.entries():
        raise given.error(f"{given.name} has no field 'type'; write the whole backbone, e.g. {{type: mmdet.ResNet}}")
    return given.plain()
