"""What is behind everything: the sky, and a far row of trees, hills or houses on the horizon."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mtadapt.datasets.synthetic.pen import Pen


@dataclass(frozen=True)
class Backdrop:
    """Far outline of a scene.

    Args:
        kind: ``'vegetation'`` or ``'building'``.
        heights: Heights of the outline in metres at equal angles, ``(K,)``.
        color: BGR under white light.
        clouds: Coarse noise ``(h, w)`` from 0 to 1 that the clouds are made of.
    """

    kind: str
    heights: np.ndarray
    color: np.ndarray
    clouds: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, scene: str) -> Backdrop:
        """Draw the backdrop of a scene of kind ``scene``."""
        town = scene == "city street" and rng.random() < 0.7
        count = 64
        if town:
            heights = np.repeat(rng.uniform(6, 40, count // 2) * (rng.random(count // 2) < 0.85), 2)
            color = np.array([128.0, 126, 122]) * rng.uniform(0.8, 1.15)
        else:
            slow = np.interp(np.arange(count), np.linspace(0, count, 9), rng.uniform(4, 22, 9))
            heights = slow * rng.uniform(0.8, 1.15, count)
            color = np.array([62.0, 92, 74]) * rng.uniform(0.8, 1.2)
        clouds = rng.random((12, 16)).astype(np.float32)
        return cls("building" if town else "vegetation", heights, color, clouds)


def paint_sky(pen: Pen, clouds: np.ndarray, owner: int) -> None:
    """Paint the sky over the whole canvas: a gradient with clouds."""
    canvas, light = pen.canvas, pen.light
    # The clouds are soft: they are made at an eighth of the size.
    small = (max(canvas.width // 8, 16), max(canvas.height // 8, 12))
    noise = cv2.resize(clouds, small, interpolation=cv2.INTER_CUBIC) * 0.6
    double = (small[0] * 3, small[1] * 3)
    noise += cv2.resize(clouds[::-1, ::-1].copy(), double, interpolation=cv2.INTER_CUBIC)[: small[1], : small[0]] * 0.4
    cover = np.clip((noise - (1 - light.clouds) * 0.95) * 3.5, 0, 1)
    bright = light.horizon * 0.5 + (light.zenith * 0.5 if light.night or light.clouds > 0.9 else 125.0)
    cloud = bright * (0.86 + 0.16 * cover[..., None])
    rows = (np.arange(small[1]) + 0.5) * canvas.height / small[1]
    height = np.clip(1 - rows / max(pen.camera.horizon(), 1.0), 0, 1)[:, None]
    gradient = light.horizon + (light.zenith - light.horizon) * np.sqrt(height)
    sky = gradient[:, None] * (1 - cover[..., None] * 0.8) + cloud * (cover[..., None] * 0.8)
    sky = np.clip(sky, 0, 255).astype(np.uint8)
    canvas.rgb[:] = cv2.resize(sky, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR)
    canvas.owners[:] = owner


def paint_far_row(pen: Pen, backdrop: Backdrop, owner: int) -> None:
    """Paint the outline on the horizon, 260 metres away."""
    distance = 260.0
    turn = np.linspace(-1.0, 1.0, len(backdrop.heights))
    if backdrop.kind == "building":  # two corners stand on each other: upright walls
        turn = turn[np.minimum((np.arange(len(turn)) + 1) // 2 * 2, len(turn) - 1)]
    x = distance * np.tan(turn * 0.9)
    top = np.column_stack([x, backdrop.heights, np.full(len(x), distance)])
    foot = np.array([[x[-1], 0.0, distance], [x[0], 0.0, distance]])
    pen.begin(owner)
    pen.faces([np.concatenate([top, foot])], backdrop.color)
