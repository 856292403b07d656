"""Find the mistakes of a benchmark before its first run."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import MODELS
from mtadapt.zoo.benchmark.cell import known_result
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.benchmark.zoo_file import Checkpoint
from mtadapt.zoo.files import HashError, cached_path, fetch
from mtadapt.zoo.load_report import LoadReport
from mtadapt.zoo.loading import MIN_MATCH, load_backbone


def check(grid: Grid, cells: Sequence[Cell], download: bool = True) -> list[str]:
    """Derive every config, find every checkpoint, and load each into the backbones that it is for.

    Of a pre-training that is yet to come, the weights that its backbone is built with are loaded instead.

    Args:
        grid: the benchmark.
        cells: of it, to be run.
        download: download the URLs that were not downloaded before; otherwise they are left out.

    Returns:
        What came from each checkpoint, and what was left out, a line each.

    Raises:
        MTAdaptError: with the line of the zoo file.
    """
    left_out: dict[str, None] = {}
    reports: dict[str, None] = {}
    hashes: dict[str, str] = {}
    loaded: set[tuple[str, str]] = set()
    for cell in cells:
        config = grid.config(cell)
        if cell.kind == "pretrain":
            _check_pretraining(cell, config)
            continue
        _check_validation(cell, config)
        source = cell.checkpoint.source
        if source and "://" in source and not download and not cached_path(source).is_file():
            left_out[f"{cell.checkpoint.where}: {source} would be downloaded"] = None
            continue
        if source and cell.checkpoint.name not in hashes:
            hashes[cell.checkpoint.name] = _hash(cell.checkpoint, source)
        key = (cell.checkpoint.name, json.dumps(config.model.backbone.to_dict(), sort_keys=True, default=repr))
        if key not in loaded:
            loaded.add(key)
            with quiet():
                report = _check_loading(grid, cell, config)
            if report is not None:
                reports.setdefault(f"{cell.checkpoint.name}: {report}")
        _check_known(grid, cell, hashes.get(cell.checkpoint.name))
    return [*reports, *left_out]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what data sets and models log while they are only looked at off the terminal; warnings in the log stay."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _at(where: str, folder: str = "", what: str = "") -> Iterator[None]:
    """Tell where a mistake is, and what a file of a temporary folder stands for."""
    try:
        yield
    except MTAdaptError as error:
        message = str(error).replace(f"{folder}/backbone.pth", what) if folder else str(error)
        raise MTAdaptError(f"{where}: {message}") from error


def _hash(checkpoint: Checkpoint, source: str) -> str:
    try:
        return fetch(source, checkpoint.sha256).sha256
    except MTAdaptError as error:
        where = checkpoint.sha256_where if isinstance(error, HashError) else checkpoint.where
        raise MTAdaptError(f"{where}: {error}") from error


def _check_validation(cell: Cell, config: Config) -> None:
    for key in ("train_dataloader", "train_cfg", "val_dataloader", "val_evaluator", "val_cfg"):
        if not config.get(key):
            raise MTAdaptError(f"{cell.training.where}: {cell.training.config} has no {key}; a benchmark needs it")


def _check_pretraining(cell: Cell, config: Config) -> None:
    for key in ("train_dataloader", "train_cfg"):
        if not config.get(key):
            raise MTAdaptError(f"{cell.training.where}: {cell.training.config} has no {key}; it cannot be trained")


def _check_loading(grid: Grid, cell: Cell, config: Config) -> LoadReport | None:
    """Load the checkpoint into the backbone, as the run will; its report, where there is a file."""
    checkpoint = cell.checkpoint
    backbone = _build(cell, config, f"{cell.training.where} and {checkpoint.where}")
    min_match = MIN_MATCH if checkpoint.min_match is None else checkpoint.min_match
    if checkpoint.source is not None:
        with _at(checkpoint.where):
            return load_backbone(
                path_or_url=checkpoint.source,
                backbone=backbone,
                prefix=checkpoint.prefix,
                min_match=min_match,
                sha256=checkpoint.sha256,
                trust_checkpoint=grid.trust_checkpoint,
            )
    if cell.needs is not None:
        pretrained = _build(cell.needs, grid.config(cell.needs), cell.needs.training.where)
        state = {f"backbone.{name}": value for name, value in pretrained.state_dict().items()}
        what = f"the backbone of the pre-training {cell.needs.training.config}"
        with tempfile.TemporaryDirectory() as folder, _at(checkpoint.where, folder, what):
            path = Path(folder, "backbone.pth")
            torch.save(dict(state_dict=state), path)
            load_backbone(path_or_url=path, backbone=backbone, prefix=checkpoint.prefix, min_match=min_match)
    return None


def _build(cell: Cell, config: Config, where: str) -> nn.Module:
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mtadapt")):
            return MODELS.build(copy.deepcopy(config.model.backbone))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise MTAdaptError(
            f"{where}: the backbone of {cell.training.config} cannot be built: {first_line(error)}"
        ) from error


def _check_known(grid: Grid, cell: Cell, sha256: str | None) -> None:
    """Refuse to go on with runs from other settings, or from another content of the checkpoint."""
    result = known_result(grid, cell)
    used = (result.weights or {}).get("sha256") if result is not None else None
    if used and sha256 and used != sha256 and cell.checkpoint.pretrain is None:
        raise MTAdaptError(
            f"{cell.checkpoint.where}: {cell.checkpoint.source} has SHA-256 {sha256[:8]}, but {grid.folder(cell)} was "
            f"run with {used[:8]}; remove the folder, or name another --work-dir"
        )
