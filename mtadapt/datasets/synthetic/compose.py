"""Draw a scene at random: which road, which light, and what stands where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtadapt.datasets.synthetic.backdrop import Backdrop
from mtadapt.datasets.synthetic.buildings import Building
from mtadapt.datasets.synthetic.camera import View
from mtadapt.datasets.synthetic.furniture import Barrier, Bin, Gantry, StreetLamp, TrafficLight, TrafficSign
from mtadapt.datasets.synthetic.light import Light, random_light
from mtadapt.datasets.synthetic.plants import Plant
from mtadapt.datasets.synthetic.road import Crossing, GroundColors, RoadLayout
from mtadapt.datasets.synthetic.solid import Pose
from mtadapt.datasets.synthetic.thing import Thing
from mtadapt.datasets.synthetic.traffic import Traffic

SCENE_SHARES = {"city street": 0.56, "residential": 0.2, "highway": 0.2, "undefined": 0.04}


@dataclass
class Description:
    """A scene before it is painted, independent of the size of the image.

    Args:
        view: The camera.
        light: Time of day and weather.
        road: The road.
        colors: Colours of the ground.
        backdrop: Sky and horizon.
        things: What stands in the scene, in any order.
        noise_seed: Seed of grain, rain, snow and the camera's noise.
    """

    view: View
    light: Light
    road: RoadLayout
    colors: GroundColors
    backdrop: Backdrop
    things: list[Thing]
    noise_seed: int


def random_description(rng: np.random.Generator) -> Description:
    """Draw a scene."""
    scene = str(rng.choice(list(SCENE_SHARES), p=list(SCENE_SHARES.values())))
    light = random_light(rng, scene)
    road = random_road(rng, scene)
    view = View(
        height=float(rng.uniform(1.15, 1.9)),
        pitch=float(rng.uniform(-0.055, 0.075)),
        yaw=float(rng.normal(0, 0.035)),
        roll=float(rng.normal(0, 0.008)),
        focal=float(rng.uniform(0.74, 1.05)),
    )
    things = Traffic(rng, road, light, scene).things()
    things += Roadside(rng, road, light, scene).things()
    return Description(
        view=view,
        light=light,
        road=road,
        colors=GroundColors.random(rng, light.snow, light.wet),
        backdrop=Backdrop.random(rng, scene),
        things=things,
        noise_seed=int(rng.integers(2**31)),
    )


def random_road(rng: np.random.Generator, scene: str) -> RoadLayout:
    """Draw the road of a scene."""
    offset, dash = float(rng.normal(0, 0.25)), float(rng.uniform(0, 9))
    bend = 0.0 if rng.random() < 0.5 else float(rng.normal(0, 0.0014))
    if scene == "highway":
        lanes = int(rng.integers(2, 5))
        return RoadLayout(
            lanes=lanes, own_lane=int(rng.integers(lanes)), opposite=int(rng.integers(2, 4)), lane_width=3.65,
            median=float(rng.uniform(2.5, 8.0)), parking=(2.2, 2.6), pavement=(0.0, 0.0), verge=(5.0, 5.0),
            bend=bend, offset=offset, dash_start=dash,
        )  # fmt: skip
    crossing = None
    if rng.random() < (0.5 if scene == "city street" else 0.3):
        rails = rng.random() < 0.18
        width = 5.0 if rails else float(rng.uniform(7.5, 13.0))
        crossing = Crossing(float(rng.uniform(14, 42)), width, rails, stripes=not rails and rng.random() < 0.75)
    bend = 0.0 if crossing else bend
    parking = tuple(float(rng.choice([0.0, 2.3], p=[0.4, 0.6])) for _ in range(2))
    if scene == "residential":
        verge = tuple(float(v) for v in rng.uniform(3.0, 8.0, 2))
        return RoadLayout(
            lanes=1, own_lane=0, opposite=1, lane_width=float(rng.uniform(3.0, 3.6)), parking=(parking[0], parking[1]),
            pavement=(1.8, 1.8), verge=(verge[0], verge[1]), bend=bend, crossing=crossing, offset=offset,
            dash_start=dash,
        )  # fmt: skip
    lanes = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    one_way = rng.random() < 0.2
    pavement = tuple(float(v) for v in rng.uniform(2.4, 5.0, 2))
    return RoadLayout(
        lanes=lanes + int(one_way), own_lane=int(rng.integers(lanes + int(one_way))), opposite=0 if one_way else lanes,
        lane_width=float(rng.uniform(3.1, 3.6)), median=float(rng.choice([0.0, 2.4], p=[0.8, 0.2])) * (not one_way),
        parking=(parking[0], parking[1]), pavement=(pavement[0], pavement[1]), bend=bend, crossing=crossing,
        solid=bool(rng.random() < 0.15), offset=offset, dash_start=dash,
    )  # fmt: skip


class Roadside:
    """What stands beside the road.

    Args:
        rng: Source of everything.
        road: The road.
        light: Lamps and snow depend on it.
        scene: BDD100K's name of the kind of scene.
    """

    def __init__(self, rng: np.random.Generator, road: RoadLayout, light: Light, scene: str) -> None:
        self.rng, self.road, self.light, self.scene = rng, road, light, scene

    def things(self) -> list[Thing]:
        """Everything beside the road, on both sides."""
        things: list[Thing] = []
        for side in (-1, 1):
            if self.scene == "highway":
                things += self._highway_side(side)
            else:
                things += self._plots(side) + self._pavement_row(side)
        if self.scene == "highway":
            things += self._highway_middle()
        elif self.road.median > 0.5:
            middle = self.road.left - self.road.median / 2
            things += [
                Plant(self.rng, self._pose(middle, z), "hedge", self.light.snow) for z in self._row(8, 90, 7, 16)
            ]
        if self.road.crossing is not None:
            things += self._crossing_lights()
        return things

    def _pose(self, place: float, z: float, yaw: float = 0.0) -> Pose:
        return Pose(place + float(self.road.shift(z)), float(z), self.road.heading(z) + yaw)

    def _row(self, start: float, end: float, low: float, high: float, margin: float = 1.5) -> list[float]:
        """Depths at random distances from each other, outside the crossing."""
        depths, z = [], start + self.rng.uniform(0, high - low)
        while z < end:
            if not self._in_crossing(z, margin):
                depths.append(float(z))
            z += self.rng.uniform(low, high)
        return depths

    def _in_crossing(self, z: float, margin: float) -> bool:
        crossing = self.road.crossing
        return crossing is not None and crossing.start - margin < z < crossing.end + margin

    def _plots(self, side: int) -> list[Thing]:
        """Buildings, gardens, parks and fences behind the pavement."""
        things: list[Thing] = []
        edge = self.road.plots[0 if side < 0 else 1]
        house = self.scene != "city street"
        z = float(self.rng.uniform(-4, 4))
        while z < 135:
            length = float(self.rng.uniform(9, 15) if house else self.rng.uniform(10, 26))
            crossing = self.road.crossing
            if crossing is not None and z < crossing.end + 3 and z + length > crossing.start - 3:
                room = crossing.start - 3.2 - z
                if room < 6:
                    z = crossing.end + 3.2
                    continue
                length = min(length, room)
            kind = self.rng.random()
            if kind < (0.75 if house else 0.82):
                things.append(self._building(edge, side, z, length, house))
                if house and self.rng.random() < 0.5:
                    things += self._fence(edge + side * 0.2, z, z + length)
            else:
                things += self._park(edge, side, z, length)
            z += length + float(self.rng.uniform(2.5, 8) if house else self.rng.choice([0.3, 4.0], p=[0.7, 0.3]))
        return things

    def _building(self, edge: float, side: int, z: float, length: float, house: bool) -> Building:
        rng = self.rng
        depth = float(rng.uniform(8, 11) if house else rng.uniform(12, 20))
        height = float(rng.uniform(3.0, 6.0) if house else rng.choice([rng.uniform(4, 9), rng.uniform(9, 28)]))
        setback = float(rng.uniform(1.5, 6.0) if house else rng.uniform(0.3, 1.2))
        pose = self._pose(edge + side * (setback + depth / 2), z + length / 2)
        return Building(rng, pose, (depth, height, length), self.light.night, self.light.snow, house)

    def _fence(self, place: float, start: float, end: float) -> list[Thing]:
        kind = "wall" if self.rng.random() < 0.4 else "fence"
        tones = {"wall": [128.0, 140, 150], "fence": [self.rng.uniform(90, 210)] * 3}
        color = np.array(tones[kind]) * self.rng.uniform(0.75, 1.15) + self.rng.normal(0, 8, 3)
        height = float(self.rng.uniform(0.9, 2.0))
        pieces: list[Thing] = []
        for z in np.arange(start, end - 2.0, 3.0).tolist():
            if 1.0 < z < 110:
                pieces.append(Barrier(self._pose(place, z + 1.5), kind, 3.02, color, height))
        return pieces

    def _park(self, edge: float, side: int, z: float, length: float) -> list[Thing]:
        things: list[Thing] = self._fence(edge + side * 0.2, z, z + length) if self.rng.random() < 0.6 else []
        for _ in range(int(length / 3)):
            place = edge + side * float(self.rng.uniform(2.5, 15))
            form = "conifer" if self.rng.random() < 0.25 else "tree"
            things.append(Plant(self.rng, self._pose(place, z + self.rng.uniform(0, length)), form, self.light.snow))
        return things

    def _pavement_row(self, side: int) -> list[Thing]:
        """Trees, lamps, signs, bins and hedges between kerb and plots."""
        rng = self.rng
        things: list[Thing] = []
        number = 0 if side < 0 else 1
        kerb, edge = self.road.kerbs[number] + side * 0.55, self.road.plots[number]
        if rng.random() < 0.6:
            things += [
                Plant(rng, self._pose(kerb + side * 0.3, z), "tree", self.light.snow)
                for z in self._row(6, 110, 8, 19, 3)
            ]
        wood = self.scene == "residential" and rng.random() < 0.5
        height = float(rng.uniform(6.0, 8.5))
        lamps = [StreetLamp(self._pose(kerb, z), -side * 2.2, height, wood) for z in self._row(5, 120, 22, 30)]
        things += lamps
        for z in self._row(7, 80, 14, 45):
            things.append(TrafficSign(rng, self._pose(kerb + side * 0.25, z)))
        things += [Bin(rng, self._pose(kerb + side * 0.3, z)) for z in self._row(4, 50, 18, 60)]
        if self.road.verge[number] > 2.5:
            for z in self._row(5, 80, 7, 20, 4):
                things.append(
                    Plant(rng, self._pose(edge - side * 0.9, z), "hedge", self.light.snow, float(rng.uniform(2, 5)))
                )
        return things

    def _highway_side(self, side: int) -> list[Thing]:
        rng = self.rng
        things: list[Thing] = []
        edge = self.road.kerbs[0 if side < 0 else 1]
        choice = rng.random()
        if choice < 0.65:
            kind = "guard rail" if choice < 0.4 else "wall"
            height = 0.75 if kind == "guard rail" else float(rng.uniform(1.0, 3.5))
            color = np.array([150.0, 150, 148]) * rng.uniform(0.8, 1.1)
            for z in np.arange(1.5, 140, 4.0).tolist():
                things.append(Barrier(self._pose(edge + side * 0.7, z + 2), kind, 4.02, color, height))
        things += [
            Plant(
                rng,
                self._pose(edge + side * rng.uniform(5, 30), z),
                str(rng.choice(["tree", "conifer"])),
                self.light.snow,
            )
            for z in self._row(14, 170, 4, 13)
        ]
        if rng.random() < 0.5:
            things += [
                StreetLamp(self._pose(edge + side * 1.6, z), -side * 2.5, 9.5) for z in self._row(12, 150, 30, 38)
            ]
        if side > 0:
            things += [TrafficSign(rng, self._pose(edge + 1.8, z), "limit") for z in self._row(15, 90, 35, 80)]
        return things

    def _highway_middle(self) -> list[Thing]:
        rng, road = self.rng, self.road
        things: list[Thing] = []
        if rng.random() < 0.6:
            middle, color = road.left - road.median / 2, np.array([160.0, 162, 164]) * rng.uniform(0.8, 1.05)
            for z in np.arange(1.5, 140, 4.0).tolist():
                things.append(Barrier(self._pose(middle, z + 2), "wall", 4.02, color, 0.95))
        if rng.random() < 0.45:
            z = float(rng.uniform(25, 70))
            left, right = road.left - 0.8, road.kerbs[1] + 0.5
            boards = [road.lane(n) - (left + right) / 2 for n in range(road.lanes) if rng.random() < 0.75]
            things.append(Gantry(rng, self._pose((left + right) / 2, z), right - left, boards or [0.0]))
        return things

    def _crossing_lights(self) -> list[Thing]:
        rng, road = self.rng, self.road
        things: list[Thing] = []
        crossing = road.crossing
        assert crossing is not None
        if crossing.rails:
            for side, kerb in zip((-1, 1), road.kerbs, strict=True):
                things.append(TrafficSign(rng, self._pose(kerb + side * 0.6, crossing.start - 2.5), "round"))
            return things
        if rng.random() < 0.7:
            color = str(rng.choice(["R", "G", "Y"], p=[0.42, 0.46, 0.12]))
            far = crossing.end + 1.2
            reach = -float(rng.uniform(2.5, 5.5)) if rng.random() < 0.6 else 0.0
            things.append(TrafficLight(rng, self._pose(road.kerbs[1] + 0.8, far), color, reach))
            if rng.random() < 0.7:
                things.append(TrafficLight(rng, self._pose(road.kerbs[0] - 0.8, far), color))
            if rng.random() < 0.5:
                things.append(TrafficLight(rng, self._pose(road.kerbs[1] + 0.8, crossing.start - 4.2), color))
            if rng.random() < 0.3:
                things.append(TrafficLight(rng, self._pose(road.kerbs[0] - 0.8, crossing.start - 1.2), "NA"))
        else:
            things.append(TrafficSign(rng, self._pose(road.kerbs[1] + 0.8, crossing.start - 4.0), "stop"))
        return things
