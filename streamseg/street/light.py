"""The light on a synthetic street: where the sun is, and what colour it, the sky and the distance have."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Light:
    """`sun` points to the sun (s, t, y). A level surface in full sun has brightness `ambient + direct` = about 1."""

    name: str
    sun: tuple[float, float, float]
    ambient: Rgb
    direct: Rgb
    zenith: Rgb
    horizon: Rgb
    clouds: float
    haze_m: float
    lamps: bool
    noise: float

    def brighter(self, gain: float) -> Light:
        """The same light for a camera that exposes `gain` times as long."""
        r, g, b = (v * gain for v in self.ambient)
        x, y, z = (v * gain for v in self.direct)
        return replace(self, ambient=(r, g, b), direct=(x, y, z))


def daylight(rng: np.random.Generator) -> Light:
    """Sunny, hazy, overcast, low sun or dusk, each in many shades."""
    name = str(rng.choice(["sunny", "sunny", "hazy", "overcast", "overcast", "low", "dusk"]))
    az = rng.uniform(0, 2 * math.pi)
    elevation = {"low": rng.uniform(16, 26), "dusk": 8.0}.get(name, rng.uniform(35, 62))
    el = math.radians(elevation)
    sun = (math.cos(el) * math.sin(az), math.cos(el) * math.cos(az), math.sin(el))
    ambient, direct, zenith, horizon, clouds, haze = {
        "sunny": ((0.46, 0.49, 0.55), (0.62, 0.58, 0.5), (88, 138, 206), (196, 214, 230), 0.45, 420.0),
        "hazy": ((0.62, 0.63, 0.65), (0.36, 0.34, 0.3), (158, 182, 210), (226, 230, 232), 0.6, 190.0),
        "overcast": ((0.86, 0.88, 0.9), (0.06, 0.06, 0.06), (196, 202, 208), (228, 230, 231), 1.0, 240.0),
        "low": ((0.42, 0.42, 0.47), (0.66, 0.54, 0.38), (120, 150, 196), (240, 218, 184), 0.5, 300.0),
        "dusk": ((0.55, 0.56, 0.64), (0.04, 0.03, 0.02), (74, 88, 122), (178, 150, 138), 0.7, 260.0),
    }[name]
    gain = rng.uniform(0.85, 1.08)
    tint = np.array([1 + rng.normal(0, 0.025), 1.0, 1 + rng.normal(0, 0.03)]) * gain

    def scale(colour: Rgb) -> Rgb:
        r, g, b = (float(v) for v in np.multiply(colour, tint))
        return (r, g, b)

    return Light(
        name,
        sun,
        scale(ambient),
        scale(direct),
        scale(zenith),
        scale(horizon),
        clouds,
        haze * rng.uniform(0.7, 1.4),
        name == "dusk",
        float(rng.uniform(1.2, 3.0) + (name == "dusk") * 1.5),
    )
