"""What can stand in a scene, and the label that each kind receives in each task."""

from __future__ import annotations

from dataclasses import dataclass

IGNORE = 255
DIRECT, ALTERNATIVE, BACKGROUND = 0, 1, 2


@dataclass(frozen=True)
class Kind:
    """Labels of one kind of thing.

    Args:
        train_id: Cityscapes train id, 255 = ignore.
        category: Detection category, None for things without boxes.
        drivable: Value in the drivable map.
    """

    train_id: int
    category: str | None = None
    drivable: int = BACKGROUND


KINDS = {
    "road": Kind(0),
    "direct lane": Kind(0, drivable=DIRECT),
    "alternative lane": Kind(0, drivable=ALTERNATIVE),
    "sidewalk": Kind(1),
    "building": Kind(2),
    "wall": Kind(3),
    "fence": Kind(4),
    "pole": Kind(5),
    "traffic light": Kind(6, "traffic light"),
    "traffic sign": Kind(7, "traffic sign"),
    "vegetation": Kind(8),
    "terrain": Kind(9),
    "sky": Kind(10),
    "pedestrian": Kind(11, "pedestrian"),
    "rider": Kind(12, "rider"),
    "car": Kind(13, "car"),
    "truck": Kind(14, "truck"),
    "bus": Kind(15, "bus"),
    "train": Kind(16, "train"),
    "motorcycle": Kind(17, "motorcycle"),
    "bicycle": Kind(18, "bicycle"),
    # Cityscapes gives these no train id.
    "rail track": Kind(IGNORE),
    "guard rail": Kind(IGNORE),
    "street furniture": Kind(IGNORE),
}
