"""What is done to whole pictures: ground texture, shine of lamps, rain, snow, and the camera's own faults."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mtadapt.datasets.synthetic.light import Light, headlight
from mtadapt.datasets.synthetic.pen import Glow, Pen

TILE = 256


def finish_ground(pen: Pen, light: Light, rng: np.random.Generator, rough: np.ndarray) -> None:
    """Give the painted ground its grain, the light of the own headlights, and the haze of its distance.

    Args:
        pen: A pen whose canvas shows sky and ground only.
        light: Light of the scene.
        rng: Source of the grain.
        rough: Strength of the grain for each owner number ``(K,)``, 0 for what is not ground.
    """
    canvas = pen.canvas
    x, z, distance = pen.camera.ground()
    top = int(np.clip(np.argmax(np.isfinite(distance).any(axis=1)), 0, canvas.height - 1))
    x, z, distance = x[top:], z[top:], np.minimum(distance[top:], 5000.0)
    amount = rough.astype(np.float32)[canvas.owners[top:]]
    noise = rng.standard_normal((TILE, TILE)).astype(np.float32)
    fine = cv2.GaussianBlur(noise, (3, 3), 0, borderType=cv2.BORDER_REFLECT) * 1.6
    coarse = cv2.GaussianBlur(noise, (0, 0), 4, borderType=cv2.BORDER_REFLECT) * 12
    x, z = np.clip(x, -500, 500), np.clip(z, -50, 500)
    grain = _sample(fine, x * 9.0, z * 5.0) * np.exp(distance * np.float32(-1 / 14))
    grain += _sample(coarse, x * 7.0, z * 3.0) * np.exp(distance * np.float32(-1 / 70)) * 0.7
    gain = np.maximum(1 + amount * grain, 0.3)
    if light.headlights:
        shine = headlight(x, z) * (np.float32(0.6) if light.wet else np.float32(0.85))
        gain = gain * (1 + (amount > 0) * shine / np.float32(light.ambient.mean()))
    keep = np.where(amount > 0, np.exp(distance * np.float32(-1 / light.visibility)), np.float32(1))[..., None]
    ground = canvas.rgb[top:].astype(np.float32)
    ground *= gain[..., None]
    ground = ground * keep + light.haze.astype(np.float32) * (1 - keep)
    canvas.rgb[top:] = np.clip(ground, 0, 255).astype(np.uint8)


def _sample(tile: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return tile[x.astype(np.int32) & (TILE - 1), z.astype(np.int32) & (TILE - 1)]


def shine(image: np.ndarray, glows: Sequence[Glow], scale: int, light: Light) -> np.ndarray:
    """Add the light around lamps, and its streaks on a wet road.

    Args:
        image: ``(H, W, 3)`` uint8 at the final size.
        glows: Lamps, in painted pixels.
        scale: Painted pixels in a final pixel.
        light: Light of the scene.
    """
    if not glows or not light.lamps:
        return image
    height, width = image.shape[:2]
    cell = 2
    layer = np.zeros((height // cell, width // cell, 3), np.uint8)
    strength = 1.0 if light.night else 0.35
    for glow in glows:
        place = glow.place / (scale * cell)
        radius = max(glow.radius / (scale * cell), 0.6)
        color = [float(value) for value in glow.color * strength]
        cv2.circle(layer, _point(place), _fixed(radius), color, cv2.FILLED, cv2.LINE_AA, 4)
        mirror = glow.mirror / (scale * cell)
        if light.wet and mirror[1] > place[1]:
            weak = [value * 0.5 for value in color]
            axes = (_fixed(radius * 0.9), _fixed(radius * 3.5))
            cv2.ellipse(layer, _point(mirror), axes, 0, 0, 360, weak, cv2.FILLED, cv2.LINE_AA, 4)
    wide = cv2.GaussianBlur(layer, (0, 0), max(width / 100, 1.5))
    near = cv2.GaussianBlur(layer, (0, 0), max(width / 400, 0.7))
    bloom = cv2.addWeighted(wide, 1.5, near, 0.55, 0)
    return cv2.add(image, cv2.resize(bloom, (width, height), interpolation=cv2.INTER_LINEAR))


def _fixed(value: float) -> int:
    return int(np.clip(round(value * 16), -(1 << 20), 1 << 20))


def _point(place: np.ndarray) -> tuple[int, int]:
    return _fixed(float(place[0])), _fixed(float(place[1]))


def rain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Streaks of rain, and drops on the windscreen."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    slant = rng.uniform(-0.25, 0.25)
    for x, y, length, value in rng.uniform([0, -0.1, 0.03, 40], [1, 1, 0.09, 110], (130, 4)):
        start = (int(x * width * 16), int(y * height * 16))
        end = (start[0] + int(slant * length * height * 16), start[1] + int(length * height * 16))
        cv2.line(layer, start, end, (value,), max(1, height // 400), cv2.LINE_AA, 4)
    bright = cv2.cvtColor(layer, cv2.COLOR_GRAY2BGR)
    out = cv2.addWeighted(image, 1.0, bright, 0.32, 0)
    soft = cv2.blur(image, (max(3, width // 40) | 1,) * 2)
    drops = np.zeros((height, width), np.uint8)
    for x, y, radius in rng.uniform([0, 0, 0.003], [1, 1, 0.011], (45, 3)):
        cv2.circle(drops, (int(x * width), int(y * height)), max(1, int(radius * width)), (255,), cv2.FILLED)
    wet = cv2.add(soft, (14, 14, 14, 0))
    return np.where(drops[..., None] > 0, wet, out)


def snow(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flakes: many small ones and some near ones out of focus."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for x, y, share, value in rng.uniform([0, 0, 0, 90], [1, 1, 1, 235], (260, 4)):
        radius = max(0.6, width / 320 * (0.5 + 1.6 * share**6))
        cv2.circle(
            layer, (int(x * width * 16), int(y * height * 16)), int(radius * 16), (value,), cv2.FILLED, cv2.LINE_AA, 4
        )
    mix = cv2.GaussianBlur(layer, (0, 0), max(width / 600, 0.5)).astype(np.float32)[..., None] / 255
    return (image * (1 - mix) + np.float32(238) * mix).astype(np.uint8)


def expose(image: np.ndarray, rng: np.random.Generator, night: bool) -> np.ndarray:
    """The camera: exposure, white balance, contrast, dark corners, a little blur, and noise."""
    height, width = image.shape[:2]
    balance = rng.uniform(0.94, 1.06, 3) * rng.uniform(0.88, 1.14)
    contrast, lift = rng.uniform(0.88, 1.15), rng.uniform(-4, 10)
    blur = rng.uniform(0.0, 0.45) * width / 320
    dark = rng.uniform(0.0, 0.3)
    sigma = rng.uniform(1.5, 3.5) + (1.5 if night else 0.0)
    levels = np.arange(256)[:, None] * balance
    table = np.clip((levels - 110) * contrast + 110 + lift, 0, 255).astype(np.uint8)
    out = cv2.LUT(image, table[:, None, :])
    if blur > 0.2:
        out = cv2.GaussianBlur(out, (0, 0), blur)
    u = np.linspace(-1, 1, width, dtype=np.float32)
    v = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = 1 - np.float32(dark / 2) * (u * u + v * v)
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(sigma)
    patches = rng.standard_normal((height // 8 + 2, width // 8 + 2), dtype=np.float32)
    uneven = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.012)
    tint = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), dtype=np.float32) * np.float32(sigma * 0.6)
    spots = cv2.resize(tint, (width, height), interpolation=cv2.INTER_LINEAR)
    result = out * (gain * (1 + uneven))[..., None] + grain[..., None] + spots
    return np.clip(result, 0, 255).astype(np.uint8)
