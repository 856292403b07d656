"""Time of day and weather, and what they do to a colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mtadapt.datasets.bdd100k_writer import FrameAttributes

# Ours: shares that resemble those of BDD100K, with the rare weathers made a little more frequent.
WEATHER_SHARES = {
    "clear": 0.40,
    "overcast": 0.16,
    "partly cloudy": 0.14,
    "rainy": 0.12,
    "snowy": 0.10,
    "foggy": 0.06,
    "undefined": 0.02,
}
TIME_SHARES = {"daytime": 0.60, "night": 0.26, "dawn/dusk": 0.14}


@dataclass(frozen=True)
class Light:
    """Light and air of one scene; colours are BGR.

    Args:
        attributes: Weather and time of day by BDD100K's names.
        ambient, sunlight: Gains of the light from everywhere and of the light from the sun.
        sun: Direction to the sun, a unit vector ``(3,)``.
        haze: Colour that distance fades into.
        visibility: Distance in metres at which 63 % of a colour has faded.
        zenith, horizon: Colours of the sky at its top and its bottom.
        shadow: Strength of the shadows that the sun casts, 0 to 1.
        clouds: Share of the sky under clouds, 0 to 1.
        headlights: The own headlights are on.
    """

    attributes: FrameAttributes
    ambient: np.ndarray
    sunlight: np.ndarray
    sun: np.ndarray
    haze: np.ndarray
    visibility: float
    zenith: np.ndarray
    horizon: np.ndarray
    shadow: float
    clouds: float
    headlights: bool = False

    @property
    def night(self) -> bool:
        """Lamps are lit and the sky is dark."""
        return self.attributes.timeofday == "night"

    @property
    def lamps(self) -> bool:
        """Vehicles drive with their lamps on."""
        return self.attributes.timeofday != "daytime" or self.attributes.weather in ("rainy", "foggy", "snowy")

    @property
    def wet(self) -> bool:
        """It rains."""
        return self.attributes.weather == "rainy"

    @property
    def snow(self) -> bool:
        """It snows, and snow lies."""
        return self.attributes.weather == "snowy"

    @cached_property
    def _numbers(self) -> tuple[list[float], list[float], list[float]]:
        return self.ambient.tolist(), self.sunlight.tolist(), self.haze.tolist()

    def seen(
        self, color: np.ndarray, normal: np.ndarray, x: float, depth: float, lamp: bool = False
    ) -> tuple[float, float, float]:
        """The colour in which a surface arrives at the camera.

        Plain numbers instead of arrays: this runs for every polygon.

        Args:
            color: BGR under white light.
            normal: Unit normal of the surface ``(3,)``.
            x: Lateral place in metres.
            depth: Distance in metres.
            lamp: It shines itself, so only the air matters.
        """
        ambient, sunlight, haze = self._numbers
        keep = math.exp(-depth / self.visibility)
        blue, green, red = color.tolist()
        if not lamp:
            sun = max(0.0, float(normal @ self.sun))
            own = float(headlight(x, depth)) * max(0.25, -float(normal[2])) if self.headlights else 0.0
            blue *= ambient[0] + sunlight[0] * sun + own
            green *= ambient[1] + sunlight[1] * sun + own
            red *= ambient[2] + sunlight[2] * sun + own
        fade = 1 - keep
        return blue * keep + haze[0] * fade, green * keep + haze[1] * fade, red * keep + haze[2] * fade


def headlight(x: np.ndarray | float, z: np.ndarray | float) -> np.ndarray:
    """Gain of the own headlights at ground places ``x``, ``z`` in metres."""
    width = 2.2 + 0.22 * np.abs(z)
    return 0.9 * np.exp(-np.square(x / width) - np.abs(z) / 26.0)


def random_light(rng: np.random.Generator, scene: str) -> Light:
    """Draw the time of day and the weather of a scene of kind ``scene``."""
    weather = str(rng.choice(list(WEATHER_SHARES), p=list(WEATHER_SHARES.values())))
    timeofday = str(rng.choice(list(TIME_SHARES), p=list(TIME_SHARES.values())))
    return make_light(rng, FrameAttributes(weather, timeofday, scene))


def make_light(rng: np.random.Generator, attributes: FrameAttributes) -> Light:
    """The light of a given weather and time of day, with its random share drawn from ``rng``."""
    dull = attributes.weather in ("overcast", "rainy", "foggy", "snowy")
    if attributes.timeofday == "night":
        ambient, sunlight = np.array([0.36, 0.33, 0.33]) * rng.uniform(0.75, 1.25), np.array([0.05, 0.05, 0.05])
        zenith = np.array([34.0, 22, 16]) * rng.uniform(0.5, 1.3)
        horizon = np.array([44.0, 42, 52]) * rng.uniform(0.7, 1.5)
        height = rng.uniform(0.5, 1.2)
    elif attributes.timeofday == "dawn/dusk":
        ambient = np.array([0.56, 0.49, 0.50]) * rng.uniform(0.75, 1.1)
        sunlight = np.array([0.14, 0.26, 0.42]) * (0.2 if dull else 1.0)
        zenith = np.array([150.0, 115, 95]) * rng.uniform(0.8, 1.1)
        horizon = np.array([130.0, 165, 225]) if not dull else np.array([160.0, 155, 160])
        height = rng.uniform(0.12, 0.3)
    else:
        ambient = np.array([0.70, 0.66, 0.63]) if not dull else np.array([0.86, 0.85, 0.84])
        sunlight = np.array([0.32, 0.36, 0.39]) * (0.12 if dull else 1.0)
        zenith = np.array([205.0, 145, 88]) if not dull else np.array([190.0, 186, 182])
        horizon = np.array([232.0, 216, 198]) if not dull else np.array([214.0, 212, 210])
        zenith, horizon = zenith * rng.uniform(0.9, 1.1), horizon * rng.uniform(0.95, 1.05)
        height = rng.uniform(0.5, 1.6)
    turn = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(turn), height, np.sin(turn)])
    visibility = {"foggy": rng.uniform(38, 75), "rainy": 190.0, "snowy": 130.0}.get(attributes.weather, 650.0)
    if attributes.weather in ("foggy", "snowy", "rainy"):
        zenith = zenith * 0.4 + horizon * 0.6
    clouds = {"clear": rng.uniform(0, 0.15), "partly cloudy": rng.uniform(0.35, 0.65), "undefined": 0.3}
    return Light(
        attributes=attributes,
        ambient=ambient,
        sunlight=sunlight,
        sun=sun / np.linalg.norm(sun),
        haze=horizon * (0.8 if attributes.timeofday == "night" else 0.97),
        visibility=float(visibility),
        zenith=zenith,
        horizon=horizon,
        shadow=0.0 if dull or attributes.timeofday == "night" else 0.42,
        clouds=float(clouds.get(attributes.weather, 0.95)),
        headlights=attributes.timeofday == "night",
    )
