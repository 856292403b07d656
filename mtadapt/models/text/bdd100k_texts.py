"""The texts of the packaged vectors: BDD100K's class names, and other names and phrases for them.

They can be written as ``synonyms`` of the prompts, for example ``synonyms=SYNONYMS['sem_seg']``.
"""

from __future__ import annotations

from mtadapt.datasets.bdd100k_classes import METAINFO

_PEOPLE = {
    "pedestrian": ["person", "person walking", "people on foot"],
    "person": ["pedestrian", "people", "human", "person walking"],
    "rider": ["cyclist", "motorcyclist", "bicyclist", "person riding a bicycle or motorcycle"],
}
_TRAFFIC = {
    "car": ["automobile", "passenger car", "sedan", "suv", "van"],
    "truck": ["lorry", "pickup truck", "cargo truck", "trailer"],
    "bus": ["coach", "city bus", "school bus"],
    "train": ["tram", "railway train", "locomotive"],
    "motorcycle": ["motorbike", "motor", "scooter", "moped"],
    "bicycle": ["bike", "pedal cycle"],
    "traffic light": ["traffic signal", "stoplight", "signal light"],
    "traffic sign": ["road sign", "street sign", "stop sign", "sign"],
}
_STUFF = {
    "road": ["street", "roadway", "asphalt", "drivable road"],
    "sidewalk": ["pavement", "footpath", "walkway"],
    "building": ["house", "skyscraper", "buildings along a street"],
    "wall": ["stone wall", "retaining wall"],
    "fence": ["railing", "guard rail", "barrier"],
    "pole": ["post", "lamp post", "street light", "column"],
    "vegetation": ["tree", "trees", "bush", "plants"],
    "terrain": ["grass", "lawn", "soil", "ground"],
    "sky": ["clouds", "open sky"],
}
_DRIVABLE = {
    "direct": [
        "road lane the car drives in",
        "own lane",
        "ego lane",
        "lane in front of the car",
        "directly drivable area",
        "drivable road",
    ],
    "alternative": [
        "alternative lane",
        "neighbouring lane",
        "adjacent lane",
        "other lane the car could change to",
        "alternatively drivable area",
    ],
    "background": ["everything that is not road", "not drivable", "non-drivable area", "surroundings of the road"],
}

#: ``SYNONYMS[task][class name]``: further names.
SYNONYMS: dict[str, dict[str, list[str]]] = {
    "det": {name: (_PEOPLE | _TRAFFIC)[name] for name in METAINFO["tasks"]["det"]["classes"]},
    "sem_seg": {name: (_PEOPLE | _TRAFFIC | _STUFF)[name] for name in METAINFO["tasks"]["sem_seg"]["classes"]},
    "drivable": _DRIVABLE,
}
#: Every text is there alone and in the template of CLIP.
TEMPLATES = ("{}", "a photo of a {}.")


def packaged_texts() -> list[str]:
    """All texts of the packaged file: names and synonyms of all tasks, in every template."""
    names = dict.fromkeys(
        text
        for task, meta in METAINFO["tasks"].items()
        for name in meta["classes"]
        for text in [name, *SYNONYMS[task][name]]
    )
    return [template.replace("{}", name) for template in TEMPLATES for name in names]
