"""The road: its lanes, what lies beside them, and a crossing; and how they are painted on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtadapt.datasets.synthetic.pen import UP, Pen

NEAREST, FURTHEST = -6.0, 420.0
LANE_END = 150.0  # metres ahead up to which a lane counts as drivable
WHITE, YELLOW = np.array([222.0, 224, 224]), np.array([70.0, 178, 222])


@dataclass(frozen=True)
class Crossing:
    """What crosses the road at ``start`` metres, ``width`` metres deep: a street, or rails."""

    start: float
    width: float
    rails: bool = False
    stripes: bool = True

    @property
    def end(self) -> float:
        """Where it ends, in metres ahead."""
        return self.start + self.width


@dataclass(frozen=True)
class RoadLayout:
    """Cross-section of the road, for traffic on the right.

    Lateral places are metres to the right of the middle of the own lane.

    Args:
        lanes: Lanes of the own direction.
        own_lane: Number of the own lane, 0 is the leftmost.
        opposite: Lanes of the other direction.
        lane_width: Metres.
        median: Width of what divides the directions; 0 is a double line.
        parking: Widths of the parking lanes or shoulders at the left and the right.
        pavement: Widths of the pavements at the left and the right, 0 for none.
        verge: Widths of the grass between pavement and the plots.
        bend: Curvature in 1/m, positive to the right.
        crossing: What crosses it, if anything.
        solid: The lane lines are solid instead of dashed.
        offset: Own place in the own lane in metres.
        dash_start: Where the dashes begin, in metres.
    """

    lanes: int = 2
    own_lane: int = 1
    opposite: int = 2
    lane_width: float = 3.5
    median: float = 0.0
    parking: tuple[float, float] = (0.0, 0.0)
    pavement: tuple[float, float] = (3.0, 3.0)
    verge: tuple[float, float] = (0.0, 0.0)
    bend: float = 0.0
    crossing: Crossing | None = None
    solid: bool = False
    offset: float = 0.0
    dash_start: float = 0.0

    @property
    def left(self) -> float:
        """Left edge of the own direction."""
        return -(self.own_lane + 0.5) * self.lane_width - self.offset

    @property
    def right(self) -> float:
        """Right edge of the own direction."""
        return self.left + self.lanes * self.lane_width

    @property
    def kerbs(self) -> tuple[float, float]:
        """Edges of the asphalt."""
        other = self.median + self.opposite * self.lane_width if self.opposite else 0.0
        return self.left - other - self.parking[0], self.right + self.parking[1]

    @property
    def plots(self) -> tuple[float, float]:
        """Where the plots for buildings begin, left and right."""
        left, right = self.kerbs
        return left - self.pavement[0] - self.verge[0], right + self.pavement[1] + self.verge[1]

    def lane(self, number: int) -> float:
        """Middle of a lane of the own direction; -1, -2, ... are lanes of the other one, from the median outwards."""
        if number >= 0:
            return self.left + (number + 0.5) * self.lane_width
        return self.left - self.median + (number + 0.5) * self.lane_width

    def shift(self, z: np.ndarray | float) -> np.ndarray | float:
        """How far the bend has carried the road to the right at ``z``."""
        return 0.5 * self.bend * np.square(np.clip(z, 0, 160)) + self.bend * 160 * np.maximum(np.asarray(z) - 160, 0)

    def heading(self, z: float) -> float:
        """Direction of the road at ``z`` in radians."""
        return float(np.arctan(self.bend * np.clip(z, 0, 160)))

    def strip(
        self, left: float, right: float, start: float = NEAREST, end: float = FURTHEST, y: float = 0.0
    ) -> np.ndarray:
        """World polygon of the ground between two lateral places and two depths."""
        count = 2 if self.bend == 0 else 14
        share = np.linspace(0, 1, count) ** 2
        z = start + (end - start) * share
        x = np.asarray(self.shift(z))
        near = np.column_stack([left + x, np.full(count, y), z])
        far = np.column_stack([right + x, np.full(count, y), z])
        return np.concatenate([near, far[::-1]])


@dataclass(frozen=True)
class GroundColors:
    """BGR of the ground under white light."""

    asphalt: np.ndarray
    pavement: np.ndarray
    kerb: np.ndarray
    terrain: np.ndarray
    median: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, snow: bool, wet: bool) -> GroundColors:
        """Colours of one scene: dark or worn asphalt, grey or reddish slabs, green or dry grass, or snow on them."""
        asphalt = np.full(3, rng.uniform(82, 128)) + rng.normal(0, 2.5, 3)
        pavement = np.array([150.0, 154, 160]) * rng.uniform(0.8, 1.1) + rng.normal(0, 4, 3)
        terrain = np.array([48.0, 108, 92]) * rng.uniform(0.8, 1.2) + [0, 0, rng.uniform(-20, 50)]
        if wet:
            asphalt, pavement = asphalt * 0.72, pavement * 0.75
        if snow:
            cover = rng.uniform(0.55, 0.95)
            white = np.array([232.0, 228, 224])
            pavement, terrain = pavement + cover * (white - pavement), terrain + cover * (white - terrain)
            asphalt = asphalt + 0.3 * cover * (white - asphalt)
        return cls(asphalt, pavement, pavement * 1.12 + 6, terrain, terrain * 0.95)


class RoadPainter:
    """Paints the ground of one scene.

    Args:
        pen: The pen of the scene.
        road: The road.
        colors: Colours of the ground.
        owners: Owner number of each ground kind.
    """

    def __init__(self, pen: Pen, road: RoadLayout, colors: GroundColors, owners: dict[str, int]) -> None:
        self.pen, self.road, self.colors, self.owners = pen, road, colors, owners

    def paint(self) -> None:
        """Paint terrain, pavements, asphalt, lanes, lines, and the crossing, in this order."""
        plain = np.array([[-60.0, 0, NEAREST], [-5000.0, 0, 3000.0], [5000.0, 0, 3000.0], [60.0, 0, NEAREST]])
        self._fill("terrain", self.colors.terrain, plain)
        self._paint_pavements()
        left, right = self.road.kerbs
        self._fill("road", self.colors.asphalt, self.road.strip(left, right))
        if self.road.crossing is not None:
            self._paint_crossing(self.road.crossing)
        if self.road.median > 0.5:
            self._paint_median()
        self._paint_lanes()
        self._paint_lines()

    def _fill(self, kind: str | None, color: np.ndarray, *polygons: np.ndarray) -> None:
        if kind is not None:
            self.pen.begin(self.owners[kind])
        self.pen.faces(polygons, color, UP, detail=kind is None)

    def _paint_pavements(self) -> None:
        left, right = self.road.kerbs
        for kerb, width, side in ((left, self.road.pavement[0], -1), (right, self.road.pavement[1], 1)):
            if width <= 0:
                continue
            self._fill("sidewalk", self.colors.pavement, self.road.strip(kerb, kerb + side * width))
            joints = [
                self.road.strip(kerb + side * 0.2, kerb + side * width, z, z + 0.05, 0.0)
                for z in np.arange(3.0, 30.0, 1.5).tolist()
            ]
            self._fill(None, self.colors.pavement * 0.86, *joints)
            self._fill("sidewalk", self.colors.kerb, self.road.strip(kerb, kerb + side * 0.22))
            self._fill(None, self.colors.asphalt * 0.62, self.road.strip(kerb - side * 0.12, kerb))

    def _paint_crossing(self, crossing: Crossing) -> None:
        far, start, end = 160.0, crossing.start, crossing.end
        across = lambda z0, z1: np.array([[-far, 0, z0], [-far, 0, z1], [far, 0, z1], [far, 0, z0]])  # noqa: E731
        if crossing.rails:
            left, right = self.road.kerbs
            self._fill("rail track", np.array([88.0, 98, 108]), across(start, end))
            self._fill("road", self.colors.asphalt * 0.93, self.road.strip(left, right, start, end))
            rails = [
                across(middle + s, middle + s + 0.12)
                for middle in (start + end) / 2 + np.array([0.0])
                for s in (-0.78, 0.66)
            ]
            self._fill(None, np.array([150.0, 148, 146]), *rails)
            return
        if max(self.road.pavement) > 0:
            width = 2.6
            left, right = self.road.kerbs
            for low, high in ((-far, left), (right, far)):
                for z0, z1 in ((start - width, start), (end, end + width)):
                    corner = np.array([[low, 0, z0], [low, 0, z1], [high, 0, z1], [high, 0, z0]])
                    self._fill("sidewalk", self.colors.pavement, corner)
        self._fill("road", self.colors.asphalt, across(start, end))
        middle = (start + end) / 2
        dashes = [
            np.array(
                [[x, 0, middle - 0.08], [x, 0, middle + 0.08], [x + 2.5, 0, middle + 0.08], [x + 2.5, 0, middle - 0.08]]
            )
            for x in (*np.arange(self.road.kerbs[1] + 3, 60, 6), *np.arange(self.road.kerbs[0] - 5.5, -60, -6))
        ]
        self._fill(None, YELLOW, *dashes)

    def _paint_median(self) -> None:
        right = self.road.left - 0.4
        left = right - self.road.median + 0.8
        spans = [(NEAREST, FURTHEST)]
        if self.road.crossing is not None:
            spans = [(NEAREST, self.road.crossing.start - 1.5), (self.road.crossing.end + 1.5, FURTHEST)]
        for start, end in spans:
            self._fill("terrain", self.colors.median, self.road.strip(left, right, start, end))
            for edge in (left, right - 0.2):
                self._fill("sidewalk", self.colors.kerb, self.road.strip(edge, edge + 0.2, start, end))

    def _paint_lanes(self) -> None:
        """Give the lanes of the own direction their owners; their colour is that of the asphalt, a little worn."""
        road = self.road
        for number in range(road.lanes):
            middle, half = road.lane(number), road.lane_width / 2
            kind = "direct lane" if number == road.own_lane else "alternative lane"
            asphalt = self.colors.asphalt * (1.0 + 0.03 * ((number * 7 + road.lanes) % 3 - 1))
            self._fill(kind, asphalt, road.strip(middle - half, middle + half, end=LANE_END))
            for rut in (-0.85, 0.85):
                self._fill(None, asphalt * 0.955, road.strip(middle + rut - 0.3, middle + rut + 0.3, end=LANE_END))

    def _paint_lines(self) -> None:
        road = self.road
        gaps = [(NEAREST, LANE_END)]
        if road.crossing is not None:
            ahead = 4.5 if road.crossing.stripes else 1.5
            gaps = [(NEAREST, road.crossing.start - ahead), (road.crossing.end + ahead, LANE_END)]
        for number in range(1, road.lanes):
            self._line(road.left + number * road.lane_width, WHITE, gaps, dashed=not road.solid)
        for number in range(1, road.opposite):
            self._line(
                road.lane(-1) + road.lane_width / 2 - number * road.lane_width, WHITE, gaps, dashed=not road.solid
            )
        if road.opposite and road.median <= 0.5:
            for side in (-0.13, 0.13):
                self._line(road.left + side, YELLOW, gaps, dashed=False)
        elif road.opposite:
            self._line(road.left + 0.1, YELLOW, gaps, dashed=False)
        if road.parking[1] > 0 or road.pavement[1] == 0:
            self._line(road.right, WHITE, gaps, dashed=False)
        if road.crossing is not None:
            self._paint_stripes(road.crossing)

    def _line(self, place: float, color: np.ndarray, spans: list[tuple[float, float]], dashed: bool) -> None:
        half = 0.075
        polygons = []
        for start, end in spans:
            if not dashed:
                polygons.append(self.road.strip(place - half, place + half, start, end))
                continue
            for z in np.arange(NEAREST + self.road.dash_start, 75.0, 9.0).tolist():
                if z >= start and z + 3.0 <= end:
                    polygons.append(self.road.strip(place - half, place + half, z, z + 3.0))
        for polygon in polygons:  # one by one: their depths differ, and with them light and haze
            self._fill(None, color, polygon)

    def _paint_stripes(self, crossing: Crossing) -> None:
        """Zebra crossings on both sides, and the stop line before them."""
        road = self.road
        left, right = road.kerbs
        if crossing.stripes:
            for start in (crossing.start - 3.4, crossing.end + 0.4):
                places = np.arange(left + 0.4, right - 0.6, 1.05).tolist()
                stripes = [road.strip(x, x + 0.5, start, start + 3.0) for x in places]
                self._fill(None, WHITE, *stripes)
        stop = crossing.start - (4.4 if crossing.stripes else 1.2)
        self._fill(None, WHITE, road.strip(road.left + 0.2, road.right, stop - 0.4, stop))
