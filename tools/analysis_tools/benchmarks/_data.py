"""Labels of BDD100K's kind and size, and the same labels as COCO JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.bdd100k_writer import SCENES, TIMES_OF_DAY, WEATHERS

CLASSES: tuple[str, ...] = METAINFO["tasks"]["det"]["classes"]
SIZE = (1280, 720)


def scalabel_path(root: Path) -> Path:
    """The label file of the train split."""
    return root / "labels/det_20/det_train.json"


def coco_path(folder: Path) -> Path:
    """The file that :func:`write_coco` writes."""
    return folder / "coco_train.json"


def write_index_data(root: Path, frames: int, boxes: int, seed: int = 0) -> None:
    """Write label files of the real kind and empty images and maps.

    Every image has boxes and a drivable map, every tenth a semantic map; the val folders hold a seventh of that.
    """
    rng = np.random.default_rng(seed)
    stems = [f"{first:08x}-{second:08x}" for first, second in rng.integers(0, 2**32, (frames, 2))]
    val = [f"{first:08x}-{second:08x}" for first, second in rng.integers(0, 2**32, (frames // 7 + 1, 2))]
    for split, names in (("train", stems), ("val", val)):
        _touch(root / f"images/100k/{split}", ".jpg", names)
        _touch(root / f"images/10k/{split}", ".jpg", names[::10])
        _touch(root / f"labels/drivable/masks/{split}", ".png", names)
        _touch(root / f"labels/sem_seg/masks/{split}", ".png", names[::10])
    counts = rng.multinomial(boxes, np.full(frames, 1 / frames))
    document = [_frame(rng, f"{stem}.jpg", int(count)) for stem, count in zip(stems, counts, strict=True)]
    path = scalabel_path(root)
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(document))


def _touch(folder: Path, suffix: str, stems: list[str]) -> None:
    folder.mkdir(parents=True)
    for stem in stems:
        (folder / f"{stem}{suffix}").touch()


def _frame(rng: np.random.Generator, name: str, count: int) -> dict:
    x1, y1 = (rng.random(count) * (side - 200) for side in SIZE)
    width, height = 2 + rng.random((2, count)) * 190
    corners = np.stack([x1, y1, x1 + width, y1 + height], axis=1).round(6).tolist()
    classes, flags = rng.integers(0, len(CLASSES), count).tolist(), (rng.random((count, 2)) < 0.4).tolist()
    weather, scene, time = (str(rng.choice(names)) for names in (WEATHERS, SCENES, TIMES_OF_DAY))
    return dict(
        name=name,
        attributes=dict(weather=weather, timeofday=time, scene=scene),
        timestamp=10000,
        labels=[
            dict(
                id=str(number),
                attributes=dict(occluded=flag[0], truncated=flag[1], trafficLightColor="NA"),
                category=CLASSES[label],
                box2d=dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            )
            for number, (box, label, flag) in enumerate(zip(corners, classes, flags, strict=True))
        ],
    )


def write_coco(root: Path, folder: Path) -> None:
    """Write the label file into another folder, as COCO JSON with no more keys than ``CocoDataset`` needs."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, frame in enumerate(msgspec.json.decode(scalabel_path(root).read_bytes())):
        images.append(dict(id=image_id, file_name=frame["name"], width=SIZE[0], height=SIZE[1]))
        for label in frame["labels"] or ():
            box = label["box2d"]
            width, height = box["x2"] - box["x1"] + 1, box["y2"] - box["y1"] + 1
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=image_id,
                    category_id=CLASSES.index(label["category"]),
                    bbox=[box["x1"], box["y1"], width, height],
                    area=width * height,
                    iscrowd=0,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES)]
    document = dict(images=images, annotations=annotations, categories=categories)
    coco_path(folder).write_bytes(msgspec.json.encode(document))
