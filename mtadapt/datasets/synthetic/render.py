"""Paint a scene and read its labels off the canvas."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace

import numpy as np

from mtadapt.datasets.bdd100k_writer import Box, FrameAttributes
from mtadapt.datasets.synthetic import effects
from mtadapt.datasets.synthetic.backdrop import paint_far_row, paint_sky
from mtadapt.datasets.synthetic.camera import Camera
from mtadapt.datasets.synthetic.canvas import Canvas
from mtadapt.datasets.synthetic.compose import Description, random_description
from mtadapt.datasets.synthetic.kinds import KINDS
from mtadapt.datasets.synthetic.pen import Glow, Pen
from mtadapt.datasets.synthetic.road import RoadPainter
from mtadapt.datasets.synthetic.thing import Thing, painting_order
from mtadapt.errors import MTAdaptError

MIN_SIZE, MAX_SIZE = (128, 96), (1920, 1200)
SUPERSAMPLE_UP_TO = 640 * 400
# Ours: an object is labelled if at least this much of it can be seen.
MIN_SHARE, MIN_PIXELS, MIN_SIDE = 0.08, 10, 2
OCCLUDED_BELOW = 0.92
GROUND = ("road", "direct lane", "alternative lane", "sidewalk", "terrain", "rail track")
ROUGHNESS = {
    "road": 0.05,
    "direct lane": 0.05,
    "alternative lane": 0.05,
    "sidewalk": 0.06,
    "terrain": 0.15,
    "rail track": 0.25,
}


@dataclass(frozen=True)
class Scene:
    """A painted scene with the labels of three tasks.

    Args:
        image: ``(H, W, 3)`` uint8 BGR.
        sem_seg: ``(H, W)`` uint8 Cityscapes train ids, 255 = ignore.
        drivable: ``(H, W)`` uint8: 0 direct, 1 alternative, 2 background.
        instances: ``(H, W)`` int32: ``Box.instance`` of the object that a pixel shows, 0 for none.
        boxes: Visible extents of the objects, both ends inclusive.
        attributes: Weather, time of day and kind of scene.
    """

    image: np.ndarray
    sem_seg: np.ndarray
    drivable: np.ndarray
    instances: np.ndarray
    boxes: list[Box]
    attributes: FrameAttributes


def render_scene(seed: int, index: int, size: tuple[int, int] = (640, 360), split: str = "train") -> Scene:
    """Paint one random scene; the same arguments give the same bytes.

    Args:
        seed: Seed of the dataset, 0 or more.
        index: Number of the scene in its split, 0 or more.
        size: Width and height in pixels; the scene itself does not depend on it.
        split: Name of the split; another name gives other scenes.

    Raises:
        MTAdaptError: The size, the seed or the index is out of range.
    """
    check_size(size)
    for name, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise MTAdaptError(f"{name} is {value}, it must be 0 or more")
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    return render(random_description(rng), size)


def parse_size(text: str) -> tuple[int, int]:
    """Read ``--size``: ``'640x360'`` is ``(640, 360)``."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise MTAdaptError(f"--size is {text!r}, write it as WIDTHxHEIGHT in pixels, e.g. 640x360")
    return int(match[1]), int(match[2])


def check_size(size: tuple[int, int]) -> None:
    """Raise MTAdaptError unless scenes can be painted at ``size`` (width, height)."""
    if not all(low <= value <= high for low, value, high in zip(MIN_SIZE, size, MAX_SIZE, strict=True)):
        raise MTAdaptError(
            f"size is {size[0]}x{size[1]}, it must lie between {MIN_SIZE[0]}x{MIN_SIZE[1]} and "
            f"{MAX_SIZE[0]}x{MAX_SIZE[1]} (width x height)"
        )


def render(description: Description, size: tuple[int, int]) -> Scene:
    """Paint a given scene at ``size`` (width, height)."""
    width, height = size
    scale = 2 if width * height <= SUPERSAMPLE_UP_TO else 1
    canvas = Canvas(width, height, scale)
    camera = Camera(description.view, canvas.width, canvas.height)
    rng = np.random.default_rng(description.noise_seed)
    registry = Registry()
    pen = Pen(canvas, camera, description.light)
    _paint_background(pen, description, registry, rng)
    _paint_things(pen, description.things, registry)
    image = canvas.final_image()
    image = effects.shine(image, _visible_glows(pen), scale, description.light)
    if description.light.wet:
        image = effects.rain(image, rng)
    if description.light.snow:
        image = effects.snow(image, rng)
    image = effects.expose(image, rng, description.light.night)
    owners = canvas.final_owners()
    boxes = registry.boxes(owners, pen, size)
    labelled = np.zeros(len(registry.kinds), np.int32)
    labelled[[box.instance for box in boxes]] = [box.instance for box in boxes]
    train_ids = np.array([KINDS[kind].train_id for kind in registry.kinds], np.uint8)
    drivable = np.array([KINDS[kind].drivable for kind in registry.kinds], np.uint8)
    attributes = description.light.attributes
    return Scene(image, train_ids[owners], drivable[owners], labelled[owners], boxes, attributes)


class Registry:
    """Gives owner numbers to the parts of a scene and makes boxes of them.

    Attributes:
        kinds: Kind of each owner number.
        painted: Final pixels that an owner covered when it had just been painted.
        light_colors: Traffic light colour of each owner number.
    """

    def __init__(self) -> None:
        self.kinds = ["sky"]
        self.painted: dict[int, int] = {}
        self.light_colors = ["NA"]

    def add(self, kind: str, light_color: str = "NA") -> int:
        """A new owner number."""
        self.kinds.append(kind)
        self.light_colors.append(light_color if kind == "traffic light" else "NA")
        return len(self.kinds) - 1

    def boxes(self, owners: np.ndarray, pen: Pen, size: tuple[int, int]) -> list[Box]:
        """Boxes of the visible extents of all objects of which enough can be seen."""
        counts = np.bincount(owners.ravel(), minlength=len(self.kinds))
        boxes = []
        for owner, kind in enumerate(self.kinds):
            category = KINDS[kind].category
            if category is None or counts[owner] < max(MIN_PIXELS, MIN_SHARE * self.painted.get(owner, 0)):
                continue
            rows, columns = _reach(owners, pen.extents[owner] / pen.canvas.scale, owner)
            x1, x2, y1, y2 = int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])
            if min(x2 - x1, y2 - y1) + 1 < MIN_SIDE:
                continue
            left, top, right, bottom = pen.extents[owner] / pen.canvas.scale
            boxes.append(
                Box(
                    category, x1, y1, x2, y2,
                    occluded=bool(counts[owner] < OCCLUDED_BELOW * self.painted[owner]),
                    truncated=bool(left < -1 or top < -1 or right > size[0] + 1 or bottom > size[1] + 1),
                    light_color=self.light_colors[owner], instance=owner,
                )
            )  # fmt: skip
        return boxes


def _reach(owners: np.ndarray, extent: np.ndarray, owner: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that show ``owner``, looked for inside its ``extent``."""
    height, width = owners.shape
    left, top = (int(max(0, value - 3)) for value in extent[:2])
    right, bottom = int(min(width, extent[2] + 4)), int(min(height, extent[3] + 4))
    mask = owners[top:bottom, left:right] == owner
    return np.flatnonzero(mask.any(axis=1)) + top, np.flatnonzero(mask.any(axis=0)) + left


def _paint_background(pen: Pen, description: Description, registry: Registry, rng: np.random.Generator) -> None:
    """Sky, ground with shadows, and the far row on the horizon."""
    paint_sky(pen, description.backdrop.clouds, 0)
    ground = {kind: registry.add(kind) for kind in GROUND}
    far = registry.add(description.backdrop.kind)
    clear = replace(description.light, visibility=1e9, headlights=False)
    ground_pen = Pen(pen.canvas, pen.camera, clear)
    RoadPainter(ground_pen, description.road, description.colors, ground).paint()
    rough = np.array([ROUGHNESS.get(kind, 0.0) for kind in registry.kinds])
    if description.light.snow:
        rough = rough * 1.8
    effects.finish_ground(ground_pen, description.light, rng, rough)
    _paint_shadows(pen, description.things)
    paint_far_row(pen, description.backdrop, far)


def _paint_shadows(pen: Pen, things: list[Thing]) -> None:
    """Darken the ground under things, and where they stand in the way of the sun."""
    under: list[np.ndarray] = []
    cast: list[np.ndarray] = []
    light = pen.light
    slide = -light.sun / max(float(light.sun[1]), 0.2)
    for thing in things:
        if thing.shadow_strength <= 0 or not -10 < thing.pose.z < 120:
            continue
        corners = thing.footprint(0.12)
        for polygons, shape in ((under, corners), (cast, _hull(corners, corners + slide * [1, 0, 1] * thing.height))):
            cut = pen.camera.polygon(shape)
            if cut is not None:
                polygons.append(cut[0])
    blur = pen.canvas.width / 320
    if light.shadow > 0 and cast:
        pen.canvas.darken(cast, light.shadow, blur)
    if under:
        pen.canvas.darken(under, 0.5, blur * 1.5)


def _hull(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Convex outline on the ground of two sets of points ``(N, 3)`` (Andrew's monotone chain)."""
    points = sorted({(float(x), float(z)) for x, _, z in np.concatenate([near, far])})

    def chain(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for point in ordered:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
                kept.pop()
            kept.append(point)
        return kept[:-1]

    outline = chain(points) + chain(points[::-1])
    return np.array([[x, 0.0, z] for x, z in outline])


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _paint_things(pen: Pen, things: list[Thing], registry: Registry) -> None:
    """Paint from back to front, and note how much of each part would be visible if nothing stood before it."""
    things = [thing for thing in things if not thing.is_outside(pen.camera)]
    for number in painting_order(things):
        thing = things[number]
        owners = [registry.add(kind, thing.light_color) for kind in thing.kinds]
        pen.tracked.update(owner for owner in owners if KINDS[registry.kinds[owner]].category is not None)
        thing.draw(pen, owners)
        for owner in owners:
            if owner in pen.extents:
                registry.painted[owner] = _visible(pen, owner)


def _visible(pen: Pen, owner: int) -> int:
    canvas = pen.canvas
    left, top, right, bottom = pen.extents[owner]
    rows = slice(int(max(0, top - 2)), int(max(0, bottom + 3)))
    columns = slice(int(max(0, left - 2)), int(max(0, right + 3)))
    return round(np.count_nonzero(canvas.owners[rows, columns] == owner) / canvas.scale**2)


def _visible_glows(pen: Pen) -> list[Glow]:
    """The lamps that nothing hides: their owner shows within two pixels of their middle."""
    owners = pen.canvas.owners
    kept = []
    for glow in pen.glows:
        column, row = int(np.clip(glow.place[0], -9, 1e6)), int(np.clip(glow.place[1], -9, 1e6))
        around = owners[max(row - 2, 0) : max(row + 3, 0), max(column - 2, 0) : max(column + 3, 0)]
        if np.any(around == glow.owner):
            kept.append(glow)
    return kept
