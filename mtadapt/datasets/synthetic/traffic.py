"""Who is on the road and on the pavements."""

from __future__ import annotations

import numpy as np

from mtadapt.datasets.synthetic.light import Light
from mtadapt.datasets.synthetic.people import Pedestrian
from mtadapt.datasets.synthetic.road import RoadLayout
from mtadapt.datasets.synthetic.solid import Pose
from mtadapt.datasets.synthetic.thing import Thing
from mtadapt.datasets.synthetic.two_wheelers import TwoWheeler
from mtadapt.datasets.synthetic.vehicles import Vehicle, make_bus, make_car, make_train, make_truck

BUSY = {"city street": 0.75, "residential": 0.35, "highway": 0.8, "undefined": 0.4}
WALKERS = {"city street": 7.0, "residential": 2.0, "highway": 0.0, "undefined": 1.5}
# Shares of car, truck, bus, motorcycle, bicycle among moving vehicles.
MIX = {
    "city street": [0.74, 0.07, 0.07, 0.05, 0.07],
    "residential": [0.78, 0.07, 0.02, 0.05, 0.08],
    "highway": [0.74, 0.18, 0.04, 0.04, 0.0],
    "undefined": [0.78, 0.1, 0.04, 0.04, 0.04],
}


class Traffic:
    """Vehicles, riders and pedestrians of one scene.

    Args:
        rng: Source of everything.
        road: The road.
        light: Lamps and umbrellas depend on it.
        scene: BDD100K's name of the kind of scene.
    """

    def __init__(self, rng: np.random.Generator, road: RoadLayout, light: Light, scene: str) -> None:
        self.rng, self.road, self.light, self.scene = rng, road, light, scene
        self.busy = BUSY[scene] * float(rng.uniform(0.15, 1.4))
        self.taken: list[tuple[float, float, float, float]] = []

    def things(self) -> list[Thing]:
        """Everybody; now and then a road is empty."""
        if self.rng.random() < 0.04:
            return []
        things: list[Thing] = []
        crossing = self.road.crossing
        if crossing is not None:
            things += self._on_rails() if crossing.rails else self._on_crossing()
        for lane in range(-self.road.opposite, self.road.lanes):
            things += self._in_lane(lane)
        for side in (0, 1):
            if self.road.parking[side] > 0 and self.scene != "highway":
                things += self._parked(side)
            things += self._walkers(side)
        if crossing is not None and crossing.stripes:
            things += self._on_stripes()
        return things

    def _pose(self, place: float, z: float, yaw: float = 0.0) -> Pose:
        return Pose(place + float(self.road.shift(z)), float(z), self.road.heading(z) + yaw)

    def _add(self, things: list[Thing], thing: Thing, gap: float = 0.4) -> bool:
        """Append ``thing`` if nobody of this traffic stands there."""
        x0, x1, z0, z1 = thing.bounds()
        for a0, a1, b0, b1 in self.taken:
            if x0 < a1 + gap and a0 < x1 + gap and z0 < b1 + gap and b0 < z1 + gap:
                return False
        self.taken.append((x0, x1, z0, z1))
        things.append(thing)
        return True

    def _vehicle(self, pose: Pose) -> Thing:
        """A moving vehicle of a random kind."""
        kind = int(self.rng.choice(5, p=MIX[self.scene]))
        lamps = self.light.lamps
        if kind < 3:
            return (make_car, make_truck, make_bus)[kind](self.rng, pose, lamps)
        aside = 1.0 if np.cos(pose.yaw) > 0 else -1.0
        pose = Pose(pose.x + aside * self.road.lane_width * (0.3 if kind == 4 else 0.0), pose.z, pose.yaw)
        return TwoWheeler(self.rng, pose, motorcycle=kind == 3, lamps=lamps)

    def _in_lane(self, lane: int) -> list[Thing]:
        rng = self.rng
        things: list[Thing] = []
        yaw = 0.0 if lane >= 0 else np.pi
        gap = 9.0 / max(self.busy, 0.08)
        own = lane == self.road.own_lane
        z = float(rng.uniform(9, 9 + 2.2 * gap) if own else rng.uniform(1.5, 2 + 2 * gap))
        while z < 95:
            place = self.road.lane(lane) + float(rng.normal(0, 0.22))
            thing = self._vehicle(self._pose(place, z, yaw + float(rng.normal(0, 0.02))))
            z += thing.length / 2
            x, turn = thing.pose.x, thing.pose.yaw
            thing.pose = Pose(x, z, turn)
            crossing = self.road.crossing
            z += thing.length / 2
            if crossing is not None and thing.bounds()[3] > crossing.start - 5 and thing.bounds()[2] < crossing.end + 1:
                z = max(z, crossing.end + 2)
                continue
            self._add(things, thing)
            z += float(rng.uniform(2.0, 6.0) + rng.exponential(gap))
        return things

    def _parked(self, side: int) -> list[Thing]:
        rng = self.rng
        things: list[Thing] = []
        left, right = self.road.kerbs
        place = left + 1.15 if side == 0 else right - 1.15
        share = float(rng.uniform(0.1, 0.95))
        crossing = self.road.crossing
        for z in np.arange(rng.uniform(1.0, 6.0), 90.0, 6.1).tolist():
            if rng.random() > share or (crossing is not None and crossing.start - 8 < z < crossing.end + 7):
                continue
            yaw = (0.0 if side == 1 or self.road.opposite == 0 else np.pi) + float(rng.normal(0, 0.03))
            pose = self._pose(place + float(rng.normal(0, 0.08)), z, yaw)
            if rng.random() < 0.06:
                self._add(
                    things, make_truck(rng, pose, False) if rng.random() < 0.3 else TwoWheeler(rng, pose, True, False)
                )
            else:
                self._add(things, make_car(rng, pose, False))
        return things

    def _on_crossing(self) -> list[Thing]:
        """Vehicles that cross from both sides, and some that turn."""
        rng = self.rng
        things: list[Thing] = []
        crossing = self.road.crossing
        assert crossing is not None
        quarter = crossing.width / 4
        left, right = self.road.kerbs
        for z, direction in ((crossing.start + quarter, 1), (crossing.end - quarter, -1)):
            x = float(rng.uniform(-35, -10) if direction > 0 else rng.uniform(10, 35))
            for _ in range(int(rng.poisson(2.2 * self.busy))):
                thing = self._vehicle(Pose(0.0, 0.0, 0.0))
                thing.pose = Pose(x, z + float(rng.normal(0, 0.15)), direction * np.pi / 2)
                x += direction * (thing.length + float(rng.uniform(2, 15)))
                self._add(things, thing)
        if rng.random() < 0.3 and self.road.opposite:
            pose = Pose(
                float(rng.uniform(left, right)), crossing.start + crossing.width / 2, float(rng.uniform(2.2, 3.9))
            )
            self._add(things, make_car(rng, pose, self.light.lamps))
        return things

    def _on_rails(self) -> list[Thing]:
        crossing = self.road.crossing
        assert crossing is not None
        things: list[Thing] = []
        if self.rng.random() < 0.8:
            middle = float(self.rng.uniform(-25, 25))
            pose = Pose(middle, (crossing.start + crossing.end) / 2, np.pi / 2)
            self._add(things, make_train(self.rng, pose, self.light.lamps, int(self.rng.integers(1, 4))))
        return things

    def _walkers(self, side: int) -> list[Thing]:
        """People on one pavement, alone and in groups, and bicycles that lean there."""
        rng = self.rng
        things: list[Thing] = []
        width = self.road.pavement[side]
        if width <= 0:
            return things
        kerb = self.road.kerbs[side]
        sign = -1 if side == 0 else 1
        rain = self.light.wet
        for _ in range(int(rng.poisson(WALKERS[self.scene] * rng.uniform(0.2, 1.3)))):
            z = float(4.5 + 55 * rng.random() ** 1.5)
            place = kerb + sign * float(rng.uniform(0.9, max(width - 0.4, 1.0)))
            yaw = float(rng.choice([0.0, np.pi]) + rng.normal(0, 0.5))
            for number in range(int(rng.choice([1, 2, 3], p=[0.65, 0.27, 0.08]))):
                pose = self._pose(place + number * 0.62, z + number * 0.15, yaw + float(rng.normal(0, 0.2)))
                self._add(things, Pedestrian(rng, pose, rain), 0.05)
        for _ in range(int(rng.poisson(0.7 if self.scene == "city street" else 0.2))):
            pose = self._pose(kerb + sign * 0.6, float(rng.uniform(5, 35)), float(rng.normal(np.pi / 2, 0.6)))
            self._add(things, TwoWheeler(rng, pose, motorcycle=rng.random() < 0.25, ridden=False), 0.1)
        return things

    def _on_stripes(self) -> list[Thing]:
        rng = self.rng
        things: list[Thing] = []
        crossing = self.road.crossing
        assert crossing is not None
        left, right = self.road.kerbs
        for start in (crossing.start - 3.2, crossing.end + 0.6):
            for _ in range(int(rng.poisson(0.35 * WALKERS[self.scene]))):
                x, z = float(rng.uniform(left, right)), start + float(rng.uniform(0.3, 2.5))
                yaw = float(rng.choice([-np.pi / 2, np.pi / 2]) + rng.normal(0, 0.15))
                self._add(things, Pedestrian(rng, Pose(x, z, yaw), self.light.wet), 0.05)
        return things


__all__ = ["Traffic", "Vehicle"]
