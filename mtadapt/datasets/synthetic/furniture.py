"""Street furniture: traffic lights, signs, lamps, fences, walls, bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadapt.datasets.synthetic.pen import TOWARDS, Pen
from mtadapt.datasets.synthetic.solid import Detail, Pose, box, circle, rectangle
from mtadapt.datasets.synthetic.thing import Thing

STEEL = np.array([112.0, 110, 108])
HOUSING = np.array([34.0, 36, 34])
LAMPS = {"R": np.array([50.0, 45, 250]), "Y": np.array([50.0, 190, 250]), "G": np.array([130.0, 235, 60])}
WARM = np.array([150.0, 215, 255])


class TrafficLight(Thing):
    """One or two traffic lights on a post, or on an arm over the road.

    Args:
        rng: Source of its looks.
        pose: Foot of the post.
        color: ``'R'``, ``'Y'``, ``'G'``, or ``'NA'`` for lights that face away.
        reach: Length of the arm over the road in metres, negative to the left, 0 for none.
    """

    def __init__(self, rng: np.random.Generator, pose: Pose, color: str, reach: float = 0.0) -> None:
        super().__init__(pose, (0.3, 6.0 if reach else 3.6, 0.3), ("pole", *["traffic light"] * (2 if reach else 1)))
        self.light_color, self.reach, self.spread = color, reach, abs(reach) + 0.6
        self.frame = np.array([40.0, 170, 215]) if rng.random() < 0.35 else HOUSING
        self.size = float(rng.uniform(0.95, 1.2))

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the post, the arm and the lights."""
        pen.begin(owners[0])
        foot = np.array([self.pose.x, 0.0, self.pose.z])
        top = foot + [0, self.height - (0.2 if self.reach else 0.5), 0]
        pen.round_shape(np.stack([foot, top]), (0.1, 0.08), STEEL)
        places = [foot + [0, self.height - 1.1, -0.1]]
        if self.reach:
            end = top + [self.reach, 0.15, 0]
            pen.round_shape(np.stack([top, end]), (0.08, 0.05), STEEL)
            places = [end + [0, -0.9, -0.1], foot + [self.reach * 0.45, self.height - 1.1, -0.1]]
        for place, owner in zip(places, owners[1:], strict=True):
            pen.begin(owner)
            self._draw_head(pen, place)

    def _draw_head(self, pen: Pen, bottom: np.ndarray) -> None:
        wide, tall = 0.42 * self.size, 1.15 * self.size
        pen.faces([_upright(bottom, rectangle(-wide / 2, wide / 2, 0, tall))], self.frame)
        if self.light_color == "NA":
            return
        inner = rectangle(-wide * 0.4, wide * 0.4, tall * 0.04, tall * 0.96)
        pen.faces([_upright(bottom, inner)], HOUSING, detail=True)
        for number, name in enumerate(("G", "Y", "R")):
            height = tall * (0.2 + 0.3 * number)
            lit = name == self.light_color
            color = LAMPS[name] if lit else LAMPS[name] * 0.18 + 12
            pen.faces([_upright(bottom, circle(0, height, wide * 0.34, 10))], color, detail=True, lamp=lit)
            if lit:
                pen.glow(bottom + [0, height, 0], color, 0.16)


class TrafficSign(Thing):
    """A sign on a post.

    Args:
        rng: Source of its looks.
        pose: Foot of the post.
        form: ``'stop'``, ``'limit'``, ``'warning'``, ``'round'``, ``'give way'``, ``'street name'``; random by default.
    """

    FORMS = ("stop", "limit", "warning", "round", "give way", "street name")

    def __init__(self, rng: np.random.Generator, pose: Pose, form: str | None = None) -> None:
        super().__init__(pose, (0.2, 2.9, 0.2), ("pole", "traffic sign"))
        self.form = form or str(rng.choice(self.FORMS))
        self.size = float(rng.uniform(0.85, 1.25))
        self.spread = 1.0
        self.mount = float(rng.uniform(1.9, 2.3))
        self.fade = float(rng.uniform(0.8, 1.05))

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the post and the plate."""
        foot = np.array([self.pose.x, 0.0, self.pose.z])
        pen.begin(owners[0])
        pen.round_shape(np.stack([foot, foot + [0, self.mount + 0.35, 0]]), (0.045, 0.045), STEEL)
        pen.begin(owners[1])
        for number, (polygon, color) in enumerate(self._plate()):
            shape = _upright(foot + [0, self.mount + 0.3, -0.06], polygon * self.size)
            # Signs throw headlights back, so they do not get as dark as the rest.
            color = color * self.fade * (0.8 if pen.light.night else 1.0)
            pen.faces([shape], color, TOWARDS, detail=number > 0, lamp=pen.light.night)

    def _plate(self) -> list[tuple[np.ndarray, np.ndarray]]:
        red, white, yellow = np.array([40.0, 36, 190]), np.array([228.0, 230, 230]), np.array([40.0, 190, 240])
        black, green, blue = np.array([30.0, 30, 30]), np.array([80.0, 112, 24]), np.array([160.0, 84, 24])
        if self.form == "stop":
            return [(_octagon(0.42), white), (_octagon(0.39), red), (rectangle(-0.27, 0.27, -0.09, 0.09), white)]
        if self.form == "limit":
            return [(rectangle(-0.32, 0.32, -0.4, 0.4), black), (rectangle(-0.29, 0.29, -0.37, 0.37), white),
                    (rectangle(-0.2, -0.03, -0.25, 0.08), black), (rectangle(0.04, 0.2, -0.25, 0.08), black),
                    (rectangle(-0.2, 0.2, 0.18, 0.28), black)]  # fmt: skip
        if self.form == "warning":
            return [
                (circle(0, 0, 0.48, 4), black),
                (circle(0, 0, 0.44, 4), yellow),
                (rectangle(-0.05, 0.05, -0.2, 0.22), black),
            ]
        if self.form == "round":
            return [
                (circle(0, 0, 0.38, 16), red),
                (circle(0, 0, 0.29, 16), white),
                (rectangle(-0.15, 0.15, -0.1, 0.1), black),
            ]
        if self.form == "give way":
            down = np.array([[-0.45, 0.35], [0.45, 0.35], [0, -0.42]])
            return [(down, red), (down * 0.6 + [0, 0.04], white)]
        board = green if self.size > 1 else blue
        return [(rectangle(-0.65, 0.65, -0.16, 0.16), white), (rectangle(-0.62, 0.62, -0.13, 0.13), board),
                (rectangle(-0.5, 0.45, -0.05, 0.06), white)]  # fmt: skip


class Gantry(Thing):
    """A beam over a motorway with large green signs.

    Args:
        rng: Source of its looks.
        pose: Middle of the beam, on the ground.
        span: Width of what it spans in metres.
        boards: Lateral places of the signs relative to the middle.
    """

    shadow_strength = 0.0

    def __init__(self, rng: np.random.Generator, pose: Pose, span: float, boards: Sequence[float]) -> None:
        super().__init__(pose, (span, 7.2, 0.4), ("pole", *["traffic sign"] * len(boards)))
        self.boards = list(boards)
        self.spread = 3.0
        self.sizes = rng.uniform([2.4, 1.6], [3.4, 2.3], (len(boards), 2))

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the beam and its boards."""
        pen.begin(owners[0])
        middle, half = np.array([self.pose.x, 0.0, self.pose.z]), self.width / 2
        for side in (-half, half):
            pen.round_shape(np.stack([middle + [side, 0, 0], middle + [side, 6.6, 0]]), (0.22, 0.18), STEEL)
        for height in (5.7, 6.5):
            pen.round_shape(np.stack([middle + [-half, height, 0], middle + [half, height, 0]]), (0.1, 0.1), STEEL)
        for place, (wide, tall), owner in zip(self.boards, self.sizes, owners[1:], strict=True):
            pen.begin(owner)
            centre = middle + [place, 6.1, -0.3]
            gain = 0.75 if pen.light.night else 1.0
            white, green = np.array([225.0, 228, 228]) * gain, np.array([84.0, 112, 22]) * gain
            pen.faces(
                [_upright(centre, rectangle(-wide / 2, wide / 2, -tall / 2, tall / 2))], white, lamp=pen.light.night
            )
            inner = rectangle(-wide / 2 + 0.08, wide / 2 - 0.08, -tall / 2 + 0.08, tall / 2 - 0.08)
            pen.faces([_upright(centre, inner)], green, detail=True, lamp=pen.light.night)
            for row in (-0.22, 0.18):
                text = rectangle(-wide * 0.36, wide * (0.3 if row > 0 else 0.1), row * tall, (row + 0.16) * tall)
                pen.faces([_upright(centre, text)], white, detail=True, lamp=pen.light.night)


class StreetLamp(Thing):
    """A lamp post; ``reach`` is where its arm points, negative to the left. Utility poles have none."""

    def __init__(self, pose: Pose, reach: float, height: float = 7.5, wood: bool = False) -> None:
        super().__init__(pose, (0.25, height, 0.25), ("pole",))
        self.reach, self.wood, self.spread = reach, wood, abs(reach) + 1.0

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the post, the arm and its lamp."""
        pen.begin(owners[0])
        foot = np.array([self.pose.x, 0.0, self.pose.z])
        top = foot + [0, self.height, 0]
        color = np.array([64.0, 78, 92]) if self.wood else STEEL * 0.85
        pen.round_shape(np.stack([foot, top]), (0.13, 0.09), color)
        if self.wood:
            for height in (-0.4, -1.1):
                pen.round_shape(np.stack([top + [-1.0, height, 0], top + [1.0, height, 0]]), (0.07, 0.07), color)
            return
        end = top + [self.reach, 0.25, 0]
        pen.round_shape(np.stack([top, end]), (0.07, 0.05), color)
        pen.round_shape(np.stack([end - [0.3, 0, 0], end + [0.3, 0, 0]]), (0.1, 0.1), color)
        if pen.light.night:
            pen.round_shape(np.stack([end - [0.25, 0.1, 0], end + [0.25, -0.1, 0]]), (0.09, 0.09), WARM, detail=True)
            pen.glow(end - [0, 0.15, 0], WARM, 0.45)


class Barrier(Thing):
    """A piece of a fence, a wall or a guard rail along the road.

    Args:
        rng: Source of its looks.
        pose: Its middle; ``yaw`` follows the road.
        kind: ``'fence'``, ``'wall'`` or ``'guard rail'``.
        length: Metres.
        color, height: The same for all pieces of one barrier.
    """

    def __init__(self, pose: Pose, kind: str, length: float, color: np.ndarray, height: float) -> None:
        super().__init__(pose, (0.3 if kind == "wall" else 0.1, height, length), (kind,))
        self.color = color
        half = length / 2
        details: list[Detail] = []
        bottom = 0.45 if kind == "guard rail" else 0.0
        if kind == "fence":
            for place in np.arange(-half, half, 0.5).tolist():
                details.append(Detail(-1, rectangle(place, place + 0.07, 0, height), color * 0.62))
            for level in (0.2, 0.85):
                details.append(
                    Detail(-1, rectangle(-half, half, height * level - 0.04, height * level + 0.04), color * 0.75)
                )
        elif kind == "wall":
            details.append(Detail(-1, rectangle(-half, half, height - 0.14, height), color * 1.15))
            details.append(Detail(-1, rectangle(-half, -half + 0.05, 0, height), color * 0.75))
        else:
            details.append(Detail(-1, rectangle(-half, half, 0.56, 0.62), color * 0.7))
            details.append(Detail(-1, rectangle(-0.07, 0.07, 0.0, 0.5), color * 0.75, beyond=True))
        self.body = box(length, self.width, bottom, height, color, details=details)

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the barrier."""
        pen.begin(owners[0])
        self.body.draw(pen, self.pose)


class Bin(Thing):
    """A rubbish bin or a hydrant; Cityscapes has no class for them, so they are ignored."""

    def __init__(self, rng: np.random.Generator, pose: Pose) -> None:
        super().__init__(pose, (0.6, 1.0, 0.6), ("street furniture",))
        self.color = np.array([[60.0, 84, 44], [50, 50, 52], [140, 84, 40], [40, 44, 160]])[rng.integers(4)]

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the bin."""
        pen.begin(owners[0])
        box(0.6, 0.6, 0.0, 0.85, self.color, roof=self.color * 0.7).draw(pen, self.pose)
        box(0.64, 0.64, 0.85, 1.0, self.color * 0.6).draw(pen, self.pose)


def _upright(origin: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """A polygon ``(N, 2)`` (right, up) that faces the camera, set at a world point."""
    return origin + np.column_stack([polygon, np.zeros(len(polygon))])


def _octagon(radius: float) -> np.ndarray:
    turn = np.pi / 8 + np.arange(8) * np.pi / 4
    return radius / np.cos(np.pi / 8) * np.column_stack([np.cos(turn), np.sin(turn)])
