"""Class names, colours and name mappings of BDD100K.

Reference:
    ``bdd100k/configs/{det,sem_seg,drivable}.toml`` of the official toolkit; the colours are those of Cityscapes.
"""

#: Categories of the published files that are another name of a class.
DET_NAMES = {"person": "pedestrian", "motor": "motorcycle", "bike": "bicycle", "van": "car", "caravan": "car"}

#: Categories that become ignore regions of a class.
DET_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}

_CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

_DET = {
    "pedestrian": (220, 20, 60),
    "rider": (255, 110, 60),
    "car": (0, 140, 255),
    "truck": (120, 90, 255),
    "bus": (0, 200, 200),
    "train": (0, 120, 140),
    "motorcycle": (170, 0, 255),
    "bicycle": (255, 0, 160),
    "traffic light": (250, 170, 30),
    "traffic sign": (230, 220, 0),
}

_DRIVABLE = {"direct": (219, 94, 86), "alternative": (86, 211, 219), "background": (0, 0, 0)}


def _meta(colours: dict[str, tuple[int, int, int]]) -> dict:
    return dict(classes=tuple(colours), palette=list(colours.values()))


#: ``metainfo['tasks'][task]`` is what the stock metrics and visualizers of that task expect as their metainfo.
METAINFO: dict = dict(tasks=dict(det=_meta(_DET), sem_seg=_meta(_CITYSCAPES), drivable=_meta(_DRIVABLE)))
