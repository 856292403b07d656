"""The outputs that a call asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise MTAdaptError(f"formats={list(formats)}: {unknown[0]!r} is unknown; known: {', '.join(FORMATS)}")
    if coco_annotations is not None and "coco" not in formats:
        raise MTAdaptError(f"coco_annotations={str(coco_annotations)!r}: needs 'coco' among the formats")
    folder = Path(out_dir)
    outputs: list[Output] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "scalabel" in formats:
            outputs.append(ScalabelFile(folder / "predictions.json", metas, overwrite))
        if "coco" in formats:
            outputs.append(CocoResults(folder / "coco", metas, overwrite, coco_annotations))
        if "masks" in formats:
            outputs.append(MaskFolder(folder / "masks", overwrite))
        if submission:
            outputs.append(BDD100KSubmission(folder / "bdd100k", metas, overwrite))
        if draw:
            outputs.append(Pictures(folder / "pictures", overwrite))
    except OSError as error:
        OutputSet(outputs).abort()
        raise MTAdaptError(f"{folder}: cannot be written ({error.strerror or error}); name another out_dir") from error
    except MTAdaptError:
        OutputSet(outputs).abort()
        raise
    return OutputSet(outputs)
