"""Buildings: blocks with rows of windows, and houses with gables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadapt.datasets.synthetic.camera import NEAR
from mtadapt.datasets.synthetic.pen import Pen
from mtadapt.datasets.synthetic.solid import Pose, Prism, box
from mtadapt.datasets.synthetic.thing import Thing

# Ours: plaster, brick, concrete, sandstone, glass; BGR.
WALLS = np.array(
    [[150, 178, 196], [70, 84, 138], [142, 146, 150], [128, 160, 186], [186, 192, 196], [92, 108, 132], [156, 140, 122],
     [120, 140, 160], [96, 92, 92], [170, 190, 170]],
    float,
)  # fmt: skip
ROOFS = np.array([[62, 60, 62], [58, 66, 104], [84, 84, 86], [52, 56, 76]], float)
AWNINGS = np.array([[48, 44, 130], [110, 70, 36], [60, 92, 44], [40, 120, 170], [70, 70, 74], [190, 192, 196]], float)
PANE = np.array([104.0, 92, 80])
LIT_PANES = np.array([[120, 205, 245], [150, 220, 250], [200, 225, 235]], float)
DOOR = np.array([46.0, 52, 70])


class Building(Thing):
    """A block, or a house with a gabled roof.

    Args:
        rng: Source of its looks.
        pose: Its middle; ``yaw`` follows the road.
        size: Width (away from the road), height up to the eaves, length (along the road).
        night: Some windows are lit.
        snow: There is snow on the roof.
        house: A house for a family instead of a block.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        pose: Pose,
        size: tuple[float, float, float],
        night: bool = False,
        snow: bool = False,
        house: bool = False,
    ) -> None:
        super().__init__(pose, size, ("building",))
        width, height, length = size
        self.wall = np.clip(WALLS[rng.integers(len(WALLS))] * rng.uniform(0.75, 1.15) + rng.normal(0, 7, 3), 20, 240)
        roof = ROOFS[rng.integers(len(ROOFS))] * rng.uniform(0.8, 1.2)
        self.roof = roof * 0.25 + 170 if snow else roof
        self.house = house
        self.body = box(length, width, 0.0, height, self.wall, roof=self.roof)
        self.parts = [self.body]
        self.floor_height = float(rng.uniform(2.7, 3.6))
        self.bay = float(rng.uniform(1.8, 3.4))
        self.pane = rng.uniform(0.4, 0.75, 2)
        self.shop = not house and rng.random() < 0.55
        self.awning = AWNINGS[rng.integers(len(AWNINGS))] * rng.uniform(0.8, 1.2)
        self.lit_share = float(rng.uniform(0.1, 0.5)) if night else 0.0
        self.lit_pane = LIT_PANES[rng.integers(len(LIT_PANES))]
        self.lots = rng.random(512)
        if house:
            overhang = 0.4
            eaves = length / 2 + overhang
            outline = np.array([[-eaves, height - 0.15], [0, height + length * 0.28], [eaves, height - 0.15]])
            gable = Prism(outline, width / 2 + 0.3, self.wall * 0.95, roof=self.roof)
            self.parts.append(gable)

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the walls, the windows and the roof."""
        pen.begin(owners[0])
        for part in self.parts:
            part.draw(pen, self.pose)
            if part is self.body:
                self._draw_fronts(pen)

    def _draw_fronts(self, pen: Pen) -> None:
        half_length, half_width = self.length / 2, self.width / 2
        corners = np.array([[-half_width, 0, -half_length], [half_width, 0, -half_length],
                            [half_width, 0, half_length], [-half_width, 0, half_length]])  # fmt: skip
        world = self.pose.to_world(corners)
        for number in range(4):
            start, end = world[number], world[(number + 1) % 4]
            along = end - start
            length = float(np.hypot(along[0], along[2]))
            normal = np.array([along[2], 0.0, -along[0]]) / max(length, 1e-6)
            if normal @ (start - pen.camera.position) < 0:
                self._draw_front(pen, start, along / length, length, normal, number)

    def _draw_front(
        self, pen: Pen, start: np.ndarray, along: np.ndarray, length: float, normal: np.ndarray, number: int
    ) -> None:
        """Windows, shop windows and a cornice on one front."""
        up = np.array([0.0, 1.0, 0.0])
        first = 1 if self.shop else 0
        floors = max(int(self.height / self.floor_height), 1)
        bays = int(length / self.bay)
        if bays < 1:
            return
        column, row = np.meshgrid(np.arange(bays), np.arange(first, floors))
        column, row = column.ravel(), row.ravel()
        margin = (length - bays * self.bay) / 2
        left = margin + self.bay * (column + (1 - self.pane[0]) / 2)
        low = row * self.floor_height + 0.9
        wide, tall = self.bay * self.pane[0], min(self.floor_height * self.pane[1], self.floor_height - 1.1)
        lit = self.lots[(column * 31 + row * 7 + number * 101) % 512] < self.lit_share
        offsets = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]])
        flat = np.stack([left, low], axis=1)[:, None] + offsets
        quads = start + flat[..., :1] * along + flat[..., 1:] * up
        local = pen.camera.to_camera(quads.reshape(-1, 3))[:, 2].reshape(-1, 4)
        near = local.min(axis=1)
        seen = (near > NEAR) & (near < 160)
        for lamp in (False, True):
            for step in range(3):  # three ranges of depth, each with its own haze
                chosen = seen & (lit == lamp) & (np.digitize(near, (18.0, 45.0)) == step)
                if chosen.any():
                    color = self.lit_pane if lamp else PANE
                    pen.faces(list(quads[chosen]), color, normal, detail=True, lamp=lamp)
        if self.shop and length > 4:
            self._draw_shop(pen, start, along, length, normal)
        top = np.array([[0, self.height - 0.45], [length, self.height - 0.45], [length, self.height], [0, self.height]])
        pen.faces([start + top[:, :1] * along + top[:, 1:] * up], self.wall * 0.8, normal, detail=True)

    def _draw_shop(self, pen: Pen, start: np.ndarray, along: np.ndarray, length: float, normal: np.ndarray) -> None:
        up = np.array([0.0, 1.0, 0.0])
        lit = self.lit_share > 0 and self.lots[0] < 0.7
        sign = np.array([[0.3, 2.75], [length - 0.3, 2.75], [length - 0.3, 3.4], [0.3, 3.4]])
        pen.faces([start + sign[:, :1] * along + sign[:, 1:] * up], self.awning, normal, detail=True, lamp=lit)
        for left in np.arange(0.5, length - 3.0, 4.0):
            window = np.array([[left, 0.5], [left + 2.6, 0.5], [left + 2.6, 2.55], [left, 2.55]])
            door = np.array([[left + 2.75, 0], [left + 3.6, 0], [left + 3.6, 2.3], [left + 2.75, 2.3]])
            color = self.lit_pane if lit else PANE * 0.8
            pen.faces([start + window[:, :1] * along + window[:, 1:] * up], color, normal, detail=True, lamp=lit)
            pen.faces([start + door[:, :1] * along + door[:, 1:] * up], DOOR, normal, detail=True)
