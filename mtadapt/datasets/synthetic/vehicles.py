"""Cars, trucks, buses and trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadapt.datasets.synthetic.pen import Pen
from mtadapt.datasets.synthetic.solid import Detail, Pose, Prism, box, circle, rectangle
from mtadapt.datasets.synthetic.thing import Thing

GLASS = np.array([78.0, 66, 56])
TYRE = np.array([34.0, 32, 31])
HUB = np.array([150.0, 150, 152])
UNDERSIDE = np.array([26.0, 25, 25])
TRIM = np.array([46.0, 44, 43])
TAIL, TAIL_LIT = np.array([30.0, 24, 150]), np.array([50.0, 40, 255])
HEAD, HEAD_LIT = np.array([210.0, 215, 215]), np.array([225.0, 245, 255])
PLATE = np.array([215.0, 218, 220])
AMBER = np.array([40.0, 150, 240])
# Ours: paints roughly as frequent as on the road, BGR.
PAINTS = np.array(
    [
        [232, 233, 234], [225, 226, 228], [38, 36, 36], [30, 29, 30], [92, 90, 88], [120, 118, 116], [176, 175, 172],
        [188, 187, 186], [128, 66, 34], [150, 92, 52], [36, 32, 150], [40, 36, 178], [52, 72, 96], [70, 92, 60],
        [150, 190, 205], [40, 150, 215],
    ],
    float,
)  # fmt: skip
CAR_STYLES = ("sedan", "hatchback", "suv", "van", "pickup")


class Vehicle(Thing):
    """A vehicle made of solid parts.

    Args:
        pose: Where it stands.
        kind: Its name in the table of kinds.
        parts: Bodies in the order in which they are painted.
        size: Width, height, length.
        by_distance: Paint the parts from the furthest to the nearest instead.
    """

    def __init__(
        self, pose: Pose, kind: str, parts: Sequence[Prism], size: tuple[float, float, float], by_distance: bool = False
    ) -> None:
        super().__init__(pose, size, (kind,))
        self.parts = list(parts)
        self.by_distance = by_distance

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the parts."""
        pen.begin(owners[0])
        parts = self.parts
        if self.by_distance:
            here = pen.camera.position
            parts = sorted(parts, key=lambda part: -np.linalg.norm(self.pose.to_world(part.points).mean(0) - here))
        for part in parts:
            part.draw(pen, self.pose)


def random_paint(rng: np.random.Generator) -> np.ndarray:
    """A car colour, slightly off its tin."""
    return np.clip(PAINTS[rng.integers(len(PAINTS))] * rng.uniform(0.85, 1.1) + rng.normal(0, 5, 3), 12, 245)


def make_car(rng: np.random.Generator, pose: Pose, lamps: bool, style: str | None = None) -> Vehicle:
    """A passenger car of one of ``CAR_STYLES``, a random one by default."""
    style = style or str(rng.choice(CAR_STYLES, p=[0.36, 0.2, 0.26, 0.09, 0.09]))
    paint = random_paint(rng)
    length = {"sedan": 4.7, "hatchback": 4.1, "suv": 4.7, "van": 5.0, "pickup": 5.4}[style] * rng.uniform(0.95, 1.05)
    top = {"sedan": 1.45, "hatchback": 1.5, "suv": 1.76, "van": 2.0, "pickup": 1.82}[style] * rng.uniform(0.97, 1.04)
    width = {"sedan": 1.8, "hatchback": 1.76, "suv": 1.92, "van": 1.98, "pickup": 1.98}[style]
    belt = top * {"sedan": 0.63, "hatchback": 0.62, "suv": 0.6, "van": 0.55, "pickup": 0.58}[style]
    bonnet = belt * {"van": 0.95}.get(style, 0.86)
    half = length / 2
    body_outline = np.array(
        [[-half, 0.28], [-half + 0.04, belt], [0.2 * length, belt], [half - 0.06, bonnet], [half, 0.28]]
    )
    # Rear foot, rear roof, front roof, front foot of the cabin, in lengths.
    rear, rear_top, front_top, front = {
        "sedan": (-0.41, -0.27, 0.05, 0.22),
        "hatchback": (-0.49, -0.42, 0.07, 0.25),
        "suv": (-0.49, -0.44, 0.1, 0.25),
        "van": (-0.495, -0.48, 0.24, 0.37),
        "pickup": (-0.12, -0.09, 0.1, 0.23),
    }[style]
    cabin_outline = np.array([[rear, belt], [rear_top, top], [front_top, top], [front, belt]]) * [length, 1]
    half_width = width / 2
    body = Prism(body_outline, half_width, paint, details=_body_details(length, belt, lamps, rng, half_width))
    cabin = Prism(
        cabin_outline,
        np.array([half_width - 0.04, half_width - 0.17, half_width - 0.17, half_width - 0.04]),
        paint,
        details=_cabin_details(cabin_outline, belt, top, style),
    )
    parts = [*_underside(length, width), body, cabin]
    return Vehicle(pose, "car", parts, (width, top, length))


def _underside(
    length: float, width: float, axles: Sequence[float] = (-0.31, 0.31), radius: float = 0.33
) -> list[Prism]:
    """The dark floor and the tyres as they are seen from behind and from the front."""
    parts = [box(length * 0.9, width * 0.9, 0.14, 0.4, UNDERSIDE)]
    for axle in axles:
        for side in (-1, 1):
            outline = rectangle(axle * length - radius, axle * length + radius, 0.0, radius * 1.2)
            parts.append(Prism(outline, 0.12, TYRE, centre=side * (width / 2 - 0.14), fine=True))
    return parts


def _wheels(length: float, axles: Sequence[float] = (-0.31, 0.31), radius: float = 0.33) -> list[Detail]:
    details = []
    for axle in axles:
        details.append(Detail(-1, circle(axle * length, radius, radius), TYRE, beyond=True))
        details.append(Detail(-1, circle(axle * length, radius, radius * 0.55, 8), HUB))
    return details


def _body_details(length: float, belt: float, lamps: bool, rng: np.random.Generator, half_width: float) -> list[Detail]:
    """Lamps, plates, grille, bumpers, sills and wheels of a car's lower body."""
    braking = lamps or rng.random() < 0.3
    tail, head = (TAIL_LIT if braking else TAIL), (HEAD_LIT if lamps else HEAD)
    glow_rear, glow_front = (0.1 if lamps else 0.0), (0.14 if lamps else 0.0)
    inner = rng.uniform(0.55, 0.75)
    details = [Detail(0, rectangle(-0.98, 0.98, 0.0, 0.22), TRIM), Detail(3, rectangle(-0.98, 0.98, 0.7, 1.0), TRIM)]
    for side in (-1, 1):
        details.append(Detail(0, rectangle(side * inner, side * 0.98, 0.62, 0.88), tail, braking, glow_rear))
        details.append(Detail(3, rectangle(side * inner, side * 0.97, 0.12, 0.38), head, lamps, glow_front))
    details.append(Detail(0, rectangle(-0.28, 0.28, 0.4, 0.6), PLATE))
    details.append(Detail(3, rectangle(-0.5, 0.5, 0.2, 0.5), TRIM * 0.8))
    details.append(Detail(3, rectangle(-0.26, 0.26, 0.56, 0.72), PLATE))
    details.append(Detail(-1, rectangle(-0.42 * length, 0.42 * length, 0.28, 0.36), TRIM))
    for place in (-0.17, 0.02, 0.19):
        line = rectangle(place * length, place * length + 0.025, 0.38, belt * 0.97)
        details.append(Detail(-1, line, TRIM))
    details.append(Detail(-1, rectangle(0.165 * length, 0.215 * length, belt, belt + 0.14), TRIM, beyond=True))
    return details + _wheels(length)


def _cabin_details(outline: np.ndarray, belt: float, top: float, style: str) -> list[Detail]:
    """Glass of a car's cabin: rear window, windscreen, side windows with a pillar between them."""
    details = [Detail(2, rectangle(-0.92, 0.92, 0.1, 0.94), GLASS * 1.1)]
    if style != "van" or outline[0, 0] < 0:
        details.append(Detail(0, rectangle(-0.86, 0.86, 0.15, 0.88), GLASS))
    low, high = belt + 0.04, top - 0.1
    share = (high - belt) / (top - belt)
    rear_low, rear_high = outline[0, 0] + 0.12, outline[0, 0] + share * (outline[1, 0] - outline[0, 0]) + 0.12
    front_low, front_high = outline[3, 0] - 0.14, outline[3, 0] + share * (outline[2, 0] - outline[3, 0]) - 0.12
    if style == "van":
        rear_low = rear_high = (outline[0, 0] + outline[3, 0]) / 2
    middle = (rear_low + front_low) / 2
    if style != "van":
        rear_glass = [[rear_low, low], [middle - 0.05, low], [middle - 0.05, high], [rear_high, high]]
        details.append(Detail(-1, np.array(rear_glass), GLASS))
    front_glass = [[middle + 0.05, low], [front_low, low], [front_high, high], [middle + 0.05, high]]
    details.append(Detail(-1, np.array(front_glass), GLASS))
    return details


def _ends(lamps: bool, low: float, high: float) -> list[Detail]:
    """Lamps at both ends of a box-shaped vehicle, between the shares ``low`` and ``high`` of its end faces."""
    details = []
    for side in (-1, 1):
        rear = rectangle(side * 0.72, side * 0.94, low, high)
        front = rectangle(side * 0.66, side * 0.92, 1 - high, 1 - low)
        details.append(Detail(0, rear, TAIL_LIT if lamps else TAIL, lamps, 0.1 if lamps else 0.0))
        details.append(Detail(2, front, HEAD_LIT if lamps else HEAD, lamps, 0.14 if lamps else 0.0))
    return details


def _cab(front: float, length: float, top: float, width: float, paint: np.ndarray, lamps: bool) -> Prism:
    """The driver's cab of a truck whose nose is at ``front``."""
    rear = front - length
    outline = np.array([[rear, 0.45], [rear, top], [front - 0.35, top], [front, 1.5], [front, 0.45]])
    window = np.array([[rear + 0.7, 1.55], [front - 0.3, 1.55], [front - 0.5, top - 0.2], [rear + 0.7, top - 0.2]])
    details = [
        Detail(2, rectangle(-0.9, 0.9, 0.12, 0.92), GLASS),
        Detail(3, rectangle(-0.6, 0.6, 0.15, 0.6), TRIM),
        Detail(-1, window, GLASS),
    ]
    for side in (-1, 1):
        lamp = rectangle(side * 0.66, side * 0.94, 0.62, 0.8)
        details.append(Detail(3, lamp, HEAD_LIT if lamps else HEAD, lamps, 0.14 if lamps else 0.0))
    return Prism(outline, width / 2 - 0.05, paint, details=details)


def make_truck(rng: np.random.Generator, pose: Pose, lamps: bool) -> Vehicle:
    """A box truck or an articulated lorry."""
    long = rng.random() < 0.35
    length, width = (13.0 if long else float(rng.uniform(6.5, 8.5))), 2.45
    top = float(rng.uniform(3.1, 3.9))
    cab_length, cab_top = 2.2, min(2.75, top - 0.2)
    paint = random_paint(rng)
    load = np.array([228.0, 228, 226]) if rng.random() < 0.6 else random_paint(rng) * 0.8 + 40
    front = length / 2
    axles = (-0.4, -0.3, 0.34) if long else (-0.28, 0.34)
    nose = _cab(front, cab_length, cab_top, width, paint, lamps)
    cargo_length = length - cab_length - 0.15
    stripe = random_paint(rng)
    middle = -length / 2 + cargo_length / 2
    details = [
        Detail(0, rectangle(-0.03, 0.03, 0.05, 0.97), load * 0.6),
        *(Detail(0, rectangle(side * 0.93, side, 0.0, 1.0), load * 0.72) for side in (-1, 1)),
        Detail(0, rectangle(-1.0, 1.0, 0.95, 1.0), load * 0.72),
        Detail(0, rectangle(-1.0, 1.0, 0.0, 0.06), TRIM),
        Detail(
            -1, rectangle(middle - cargo_length * 0.35, middle + cargo_length * 0.35, top * 0.55, top * 0.75), stripe
        ),
        Detail(-1, rectangle(middle - cargo_length / 2, middle + cargo_length / 2, 0.85, 0.98), TRIM),
    ]
    if rng.random() < 0.5:
        details.append(Detail(0, rectangle(-0.7, 0.7, 0.4, 0.7), stripe))
    cargo = box(cargo_length, width, 0.85, top, load, forward=middle, details=details)
    sill = box(
        length * 0.94, width * 0.86, 0.45, 0.9, TRIM, details=[*_ends(lamps, 0.2, 0.8), *_wheels(length, axles, 0.48)]
    )
    parts = [*_underside(length, width, axles, 0.48), sill, cargo, nose]
    return Vehicle(pose, "truck", parts, (width, top, length), by_distance=True)


def make_bus(rng: np.random.Generator, pose: Pose, lamps: bool) -> Vehicle:
    """A city bus, or a yellow school bus."""
    length, width, top = float(rng.uniform(10.5, 12.5)), 2.55, float(rng.uniform(2.95, 3.25))
    choice = rng.random()
    paint = np.array([30.0, 165, 235]) if choice < 0.3 else random_paint(rng)
    band = random_paint(rng)
    glass = np.array([120.0, 190, 225]) if lamps and rng.random() < 0.7 else GLASS
    details = [Detail(-1, rectangle(-length / 2, length / 2, 0.95, 1.2), band), *_ends(lamps, 0.08, 0.17)]
    details.append(Detail(0, rectangle(-0.8, 0.8, 0.5, 0.85), GLASS))
    details.append(Detail(0, rectangle(-0.9, 0.9, 0.22, 0.4), band))
    details.append(Detail(2, rectangle(-0.93, 0.93, 0.2, 0.66), GLASS * 1.1))
    details.append(Detail(2, rectangle(-0.7, 0.7, 0.05, 0.16), AMBER * 0.9, True))
    details.append(Detail(2, rectangle(-0.5, 0.5, 0.78, 0.9), TRIM))
    count = int(length / 1.35)
    for place in np.linspace(-length / 2 + 0.3, length / 2 - 1.3, count):
        details.append(
            Detail(-1, rectangle(place, place + length / count - 0.3, 1.45, top - 0.55), glass, glass is not GLASS)
        )
    for place in (-0.1, 0.4):
        details.append(Detail(-1, rectangle(place * length, place * length + 1.0, 0.45, top - 0.5), GLASS * 0.9))
    axles = (-0.26, 0.3)
    body = box(length, width, 0.32, top, paint, details=details + _wheels(length, axles, 0.48), roof=paint * 0.5 + 110)
    parts = [*_underside(length, width, axles, 0.48), body]
    return Vehicle(pose, "bus", parts, (width, top, length))


def make_train(rng: np.random.Generator, pose: Pose, lamps: bool, cars: int = 3) -> Vehicle:
    """A tram or commuter train of several cars."""
    car_length, width, top = 17.0, 2.75, 3.7
    length = cars * (car_length + 0.6)
    paint, band = random_paint(rng) * 0.6 + 80, random_paint(rng)
    glass = np.array([130.0, 200, 230]) if lamps else GLASS
    parts = []
    for number in range(cars):
        middle = -length / 2 + (number + 0.5) * (car_length + 0.6)
        start, end = middle - car_length / 2, middle + car_length / 2
        details = [Detail(-1, rectangle(start, end, 0.9, 1.35), band), *_ends(lamps, 0.1, 0.18)]
        details.append(Detail(0, rectangle(-0.75, 0.75, 0.5, 0.85), GLASS))
        details.append(Detail(2, rectangle(-0.8, 0.8, 0.2, 0.52), GLASS))
        for place in np.linspace(start + 0.8, end - 2.2, 8):
            details.append(Detail(-1, rectangle(place, place + 1.3, 1.7, 2.75), glass, lamps))
        for place in (0.25, 0.75):
            door = start + place * car_length
            details.append(Detail(-1, rectangle(door - 0.7, door + 0.7, 0.6, 2.9), band * 0.7))
        parts.append(box(car_length, width, 0.45, top, paint, forward=middle, details=details, roof=paint * 0.4 + 60))
        parts.append(box(car_length * 0.96, width * 0.8, 0.05, 0.5, UNDERSIDE, forward=middle))
    return Vehicle(pose, "train", parts, (width, top, length), by_distance=True)
