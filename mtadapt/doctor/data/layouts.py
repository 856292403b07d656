"""Which data set a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtadapt.doctor.data.ade20k import examine_ade20k, find_ade20k
from mtadapt.doctor.data.bdd100k import examine_bdd100k, is_bdd100k
from mtadapt.doctor.data.coco import examine_coco, is_coco
from mtadapt.doctor.data.imagenet import examine_imagenet, is_imagenet
from mtadapt.doctor.finding import Finding

LAYOUTS: dict[str, tuple[Callable[[Path], object], Callable[[Path, bool], list[Finding]]]] = {
    "BDD100K": (is_bdd100k, examine_bdd100k),
    "COCO": (is_coco, examine_coco),
    "ADE20K": (find_ade20k, examine_ade20k),
    "ImageNet": (is_imagenet, examine_imagenet),
}
EXPECTED = (
    "images/{100k,10k}/<split> and labels of BDD100K, annotations/instances_<split>2017.json of COCO, "
    "images/training and annotations/training of ADE20K, or <split>/<class>/<image> of ImageNet"
)


def recognise(root: Path) -> str | None:
    """Return the name of the layout of a folder."""
    return next((name for name, (matches, _) in LAYOUTS.items() if matches(root)), None)


def examine_data(root: Path, check_all: bool = False) -> list[Finding]:
    """Recognise the data set, count its images and labels, and look for the first problems.

    Args:
        root: what a config has as ``data_root``.
        check_all: read every file, not a sample of each folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        return [Finding("data", str(root), "problem", what, "give the folder that a config has as data_root")]
    layout = recognise(root)
    if layout is not None:
        return [Finding("data", str(root), "ok", f"layout of {layout}"), *LAYOUTS[layout][1](root, check_all)]
    below = {child: recognise(child) for child in sorted(root.iterdir()) if child.is_dir()}
    found = [f"{child} ({name})" for child, name in below.items() if name]
    if found:
        detail = f"no data set itself, but holds {', '.join(found)}"
        return [Finding("data", str(root), "problem", detail, "give one of these folders")]
    names = sorted(child.name for child in root.iterdir())[:5]
    detail = f"no known layout: holds {', '.join(names) or 'nothing'}; looked for {EXPECTED}"
    return [Finding("data", str(root), "problem", detail, "unpack the data set as its page in docs/ shows")]
