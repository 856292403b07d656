"""What every thing that stands in a scene has in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadapt.datasets.synthetic.camera import NEAR, Camera
from mtadapt.datasets.synthetic.pen import Pen
from mtadapt.datasets.synthetic.solid import Pose


class Thing:
    """Something that stands on the ground.

    Args:
        pose: Where it stands and how it is turned.
        size: Width, height and length in metres.
        kinds: Names in :data:`~mtadapt.datasets.synthetic.kinds.KINDS`, one for each labelled part: a traffic light
            and its pole are two parts of one thing, a rider and the bicycle too.

    Attributes:
        shadow_strength: Below 1 for things that stand on thin legs.
        spread: Metres by which its parts may reach over its footprint.
        light_color: BDD100K's ``trafficLightColor`` of its traffic lights.
    """

    shadow_strength = 1.0
    light_color = "NA"
    spread = 0.6

    def __init__(self, pose: Pose, size: tuple[float, float, float], kinds: Sequence[str]) -> None:
        self.pose = pose
        self.width, self.height, self.length = size
        self.kinds = tuple(kinds)

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the thing; ``owners`` holds one number for each of ``kinds``."""
        raise NotImplementedError

    def is_outside(self, camera: Camera) -> bool:
        """Whether the thing lies wholly behind the camera, or to the left or the right of what it sees."""
        foot = self.footprint(self.spread)
        local = camera.to_camera(np.concatenate([foot, foot + [0.0, self.height, 0.0]]))
        if local[:, 2].max() < NEAR:
            return True
        if local[:, 2].min() < NEAR:
            return False
        u = camera.to_image(local)[:, 0]
        return bool(u.max() < 0 or u.min() > camera.width)

    def footprint(self, margin: float = 0.0) -> np.ndarray:
        """Corners ``(4, 3)`` of the ground that it stands on."""
        half_width, half_length = self.width / 2 + margin, self.length / 2 + margin
        corners = np.array([[-1, 0, -1], [-1, 0, 1], [1, 0, 1], [1, 0, -1]]) * [half_width, 0, half_length]
        return self.pose.to_world(corners) * [1, 0, 1]

    def bounds(self) -> tuple[float, float, float, float]:
        """Least and greatest X and Z of the footprint."""
        corners = self.footprint()
        low, high = corners.min(axis=0), corners.max(axis=0)
        return float(low[0]), float(high[0]), float(low[2]), float(high[2])


def painting_order(things: Sequence[Thing]) -> list[int]:
    """Indices of ``things`` from back to front, for a camera at X = 0, Z = 0 that looks along Z.

    Of two things one is behind the other if it begins where the other ends in depth, or, where they overlap in
    depth, if it stands further to the same side. That decides long things such as buses and fences too, which a
    sort by distance gets wrong.
    """
    if not things:
        return []
    x0, x1, z0, z1 = np.array([thing.bounds() for thing in things]).T
    spread = np.array([thing.spread for thing in things])
    tolerance = 0.05
    beyond = z0[:, None] >= z1[None, :] - tolerance  # [i, j]: i lies wholly further than j
    apart = ~beyond & ~beyond.T
    outside = (x0[:, None] >= x1[None, :] - tolerance) & (x1[None, :] > 0)
    outside |= (x1[:, None] <= x0[None, :] + tolerance) & (x0[None, :] < 0)
    behind = beyond | (apart & outside)
    tied = behind & behind.T
    nearer = (z0 + z1)[:, None] > (z0 + z1)[None, :]
    behind &= ~tied | nearer
    unsettled = ~behind & ~behind.T
    behind |= unsettled & nearer
    behind &= _overlap_in_view(x0 - spread, x1 + spread, z0 - spread, z1 + spread)
    np.fill_diagonal(behind, False)
    return _topological(behind, z0 + z1)


def _overlap_in_view(x0: np.ndarray, x1: np.ndarray, z0: np.ndarray, z1: np.ndarray) -> np.ndarray:
    """Which pairs of ground rectangles share a direction of sight ``(N, N)``; the order of others does not matter."""
    near, far = np.maximum(z0, 0.3), np.maximum(z1, 0.3)
    left, right = np.minimum(x0 / near, x0 / far), np.maximum(x1 / near, x1 / far)
    return (left[:, None] <= right[None, :]) & (left[None, :] <= right[:, None])


def _topological(behind: np.ndarray, distance: np.ndarray) -> list[int]:
    """Sort so that ``i`` comes before ``j`` where ``behind[i, j]``; the furthest breaks a circle."""
    waiting = behind.sum(axis=0).astype(float)  # how many must come before each
    done = np.zeros(len(behind), bool)
    order = []
    for _ in range(len(behind)):
        score = np.where(done, np.inf, waiting * 1e6 - distance)
        pick = int(score.argmin())
        order.append(pick)
        done[pick] = True
        waiting -= behind[pick]
    return order
