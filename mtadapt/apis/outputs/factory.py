"""The outputs that a call asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtadapt.apis.outputs.base import Output, OutputSet
from mtadapt.apis.outputs.bdd100k import BDD100KSubmission
from mtadapt.apis.outputs.coco import CocoResults
from mtadapt.apis.outputs.masks import MaskFolder
from mtadapt.apis.outputs.pictures import Pictures
from mtadapt.apis.outputs.scalabel import ScalabelFile
from mtadapt.errors import MTAdaptError

FORMATS = ("scalabel", "coco", "masks")
_PLACES = dict(scalabel="predictions.json", coco="coco", masks="masks", submission="bdd100k", pictures="pictures")


def open_outputs(
    out_dir: str | Path,
    metas: Mapping[str, Mapping[str, Any]],
    formats: Sequence[str] = ("scalabel",),
    draw: bool = True,
    submission: bool = False,
    overwrite: bool = False,
    coco_annotations: str | Path | None = None,
) -> OutputSet:
    """Open the outputs in a folder.

    Args:
        out_dir: gets ``predictions.json`` (Scalabel), ``coco/``, ``masks/``, ``pictures/`` and ``bdd100k/`` (the
            submission), as far as they are asked for.
        metas: the tasks that are predicted, with their ``classes``.
        formats: of ``scalabel``, ``coco`` and ``masks``.
        draw: whether pictures are stored.
        submission: whether the files of the BDD100K benchmarks are written.
        overwrite: whether what is there is replaced.
        coco_annotations: file whose ids the COCO results take.

    Raises:
        MTAdaptError: for an unknown format, outputs that are there already, or a folder that cannot be written.
    """
    if coco_annotations is not None and "coco" not in formats:
        raise MTAdaptError(
            f"coco_annotations={str(coco_annotations)!r}: needs 'coco' among the formats (--formats coco)"
        )
    folder = Path(out_dir)
    makers: dict[str, Callable[[Path], Output]] = dict(
        scalabel=lambda path: ScalabelFile(path, metas, overwrite),
        coco=lambda path: CocoResults(path, metas, overwrite, coco_annotations),
        masks=lambda path: MaskFolder(path, overwrite),
        submission=lambda path: BDD100KSubmission(path, metas, overwrite),
        pictures=lambda path: Pictures(path, overwrite),
    )
    outputs: list[Output] = []
    paths = output_paths(folder, formats, draw, submission)
    made = None if folder.exists() else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            outputs.append(makers[name](path))
    except OSError as error:
        OutputSet(outputs, made).abort()
        raise MTAdaptError(
            f"{folder}: cannot be written ({error.strerror or error}); name another out_dir (--out-dir)"
        ) from error
    except MTAdaptError:
        OutputSet(outputs, made).abort()
        raise
    return OutputSet(outputs, made)


def output_paths(out_dir: str | Path, formats: Sequence[str], draw: bool, submission: bool) -> dict[str, Path]:
    """Names and paths of the outputs that :func:`open_outputs` opens.

    Raises:
        MTAdaptError: for an unknown format.
    """
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise MTAdaptError(f"formats={list(formats)}: {unknown[0]!r} is unknown; known: {', '.join(FORMATS)}")
    wanted = [*dict.fromkeys(formats), *(["submission"] if submission else []), *(["pictures"] if draw else [])]
    return {name: Path(out_dir, _PLACES[name]) for name in wanted}
