"""The plan of a synthetic street: camera, light, cross-section, buildings, trees and furniture, all drawn from one seed.

World coordinates are metres (s, t, y): across the street, along it, and up; the road's axis is s = 0, the camera t = 0.
"""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Rgb = tuple[float, float, float]
NEAR = 0.35
"""Nothing closer than this many metres is drawn."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole without roll. `f` is the focal length in pixels, `pitch` and `yaw` radians (down, to the right)."""

    s: float
    y: float
    yaw: float
    pitch: float
    f: float
    width: int
    height: int

    def scaled(self, factor: int) -> Camera:
        return Camera(self.s, self.y, self.yaw, self.pitch, self.f * factor, self.width * factor, self.height * factor)

    def axes(self) -> Floats:
        """Rows: right, down, forward, each (s, t, y)."""
        cy, sy, cp, sp = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)
        return np.array([[cy, -sy, 0], [-sy * sp, -cy * sp, -cp], [sy * cp, cy * cp, -sp]], np.float32)

    def matrix(self) -> Floats:
        """The 3x4 projection of (s, t, y, 1) to (x, y, 1) * depth."""
        k = np.array([[self.f, 0, (self.width - 1) / 2], [0, self.f, (self.height - 1) / 2], [0, 0, 1]], np.float32)
        axes = self.axes()
        out: Floats = k @ np.hstack([axes, -axes @ np.array([[self.s], [0], [self.y]], np.float32)])
        return out.astype(np.float32)


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


@dataclass(frozen=True, slots=True)
class House:
    """A facade in the plane through (s, t) along `axis` (0: s, 1: t), `length` metres long and `height` high."""

    s: float
    t: float
    axis: int
    facing: int
    length: float
    height: float
    style: str
    paint: Rgb
    roof: float
    seed: int


@dataclass(frozen=True, slots=True)
class Thing:
    """A static object that stands at (s, t): a tree, lamp, sign, bollard or parked car."""

    kind: str
    s: float
    t: float
    size: float
    seed: int


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the street; distances from the axis. `frontage`: terrace, garden, park or office."""

    sign: int
    pavement: float
    back: float
    front: float
    frontage: str
    parking: bool


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    camera: Camera
    light: Light
    lane: float
    bike: float
    parking: float
    road: float
    end: float
    zebra: float
    drive_left: bool
    sides: tuple[Side, Side]
    houses: tuple[House, ...]
    things: tuple[Thing, ...]
    busy: float
    strips: tuple[float, ...]
    """Where the parallel strips of the street meet (s, ascending): what stands in a nearer strip hides the others."""

    def order(self, s: float, t: float) -> float:
        """Larger is farther back. Between strips only their order counts, within one the distance."""
        rank = abs(bisect(self.strips, s) - bisect(self.strips, self.camera.s))
        return rank * 1000 + math.hypot(s - self.camera.s, t)


BRICKS: tuple[Rgb, ...] = (
    (150, 88, 68),
    (168, 112, 84),
    (136, 98, 80),
    (186, 150, 110),
    (120, 74, 62),
    (172, 142, 122),
)
RENDERS: tuple[Rgb, ...] = (
    (222, 214, 196),
    (206, 196, 176),
    (226, 222, 214),
    (196, 178, 150),
    (176, 186, 190),
    (214, 186, 160),
    (190, 198, 180),
    (200, 170, 160),
)
CONCRETES: tuple[Rgb, ...] = ((160, 158, 152), (176, 172, 164), (138, 140, 142), (120, 116, 112))


def plan(seed: int, width: int, height: int) -> Plan:
    """The street of `seed`; only the focal length and the picture size depend on `width` and `height`."""
    rng = np.random.default_rng([seed, 1])
    lane = rng.uniform(2.9, 3.4)
    bike = rng.uniform(1.1, 1.6)
    parked = rng.random(2) < 0.7
    parking = 2.1 if parked.any() else 0.0
    road = lane + bike + parking
    sides = (_side(rng, -1, road, bool(parked[0])), _side(rng, 1, road, bool(parked[1])))
    light = _light(rng)
    end = float(rng.uniform(150, 230))
    zebra = float(rng.uniform(13, 32)) if rng.random() < 0.6 else -1.0
    things: list[Thing] = []
    houses: list[House] = []
    camera = _camera(rng, road, sides, width, height)
    for side in sides:
        houses += _houses(rng, side, end)
        things += _things(rng, side, road, end, zebra, parking, camera)
    houses += _closing(rng, end)
    edges = [
        side.sign * e for side in sides for e in (lane, lane + bike, road, road + 0.9, side.back - 0.1, side.back + 0.1)
    ]
    strips = tuple(sorted([0.0, *(float(e) for e in edges)]))
    return Plan(
        seed,
        camera,
        light,
        lane,
        bike,
        parking,
        road,
        end,
        zebra,
        bool(rng.random() < 0.5),
        sides,
        tuple(houses),
        tuple(things),
        float(rng.uniform(0.35, 1.0)),
        strips,
    )


def _side(rng: np.random.Generator, sign: int, road: float, parked: bool) -> Side:
    frontage = str(rng.choice(["terrace", "terrace", "shops", "garden", "garden", "office", "park"]))
    pavement = road + rng.uniform(2.2, 4.6)
    depth = {"garden": rng.uniform(3, 7), "park": rng.uniform(18, 30)}.get(frontage, 0.0)
    return Side(sign, road, pavement, pavement + depth, frontage, parked)


def _camera(rng: np.random.Generator, road: float, sides: tuple[Side, Side], width: int, height: int) -> Camera:
    side = sides[int(rng.integers(2))]
    if rng.random() < 0.2:  # the low look of a dash-cam or a doorbell, over the kerb
        s, y, yaw, horizon = side.sign * (road - rng.uniform(0, 3.5)), rng.uniform(1.7, 2.6), rng.uniform(0, 12), 0.42
    else:
        s, y = side.sign * (side.pavement + rng.uniform(-1.0, 1.0) * 1.5), rng.uniform(3.2, 6.5)
        yaw, horizon = rng.uniform(6, 34), rng.uniform(0.1, 0.34)
        s = min(abs(s), side.back - 0.6) * side.sign
    fov = math.radians(rng.uniform(50, 82))
    f = max(width, height * 4 / 3) / 2 / math.tan(fov / 2)
    pitch = math.atan((0.5 - horizon) * height / f)
    return Camera(float(s), float(y), math.radians(-side.sign * yaw), pitch, float(f), width, height)


def _light(rng: np.random.Generator) -> Light:
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


def _houses(rng: np.random.Generator, side: Side, end: float) -> list[House]:
    houses: list[House] = []
    t = rng.uniform(-22, -14)
    base = rng.uniform(6, 9) if side.frontage == "garden" else rng.uniform(8, 15)
    while t < end:
        if side.frontage == "office":
            length, height, style = (
                rng.uniform(16, 34),
                rng.uniform(12, 26),
                str(rng.choice(["concrete", "glass", "brick"])),
            )
        elif side.frontage in ("garden", "park"):
            length, height, style = rng.uniform(7, 13), base + rng.uniform(-1, 1), str(rng.choice(["brick", "render"]))
        else:
            length, height, style = (
                rng.uniform(5.5, 14),
                base + rng.uniform(-2, 3),
                str(rng.choice(["brick", "brick", "render"])),
            )
            style += "+shop" if side.frontage == "shops" or rng.random() < 0.2 else ""
        colours = BRICKS if "brick" in style else RENDERS if "render" in style else CONCRETES
        paint = colours[int(rng.integers(len(colours)))]
        roof = 0.0 if side.frontage == "office" or rng.random() < 0.3 else rng.uniform(2, 3.4)
        houses.append(
            House(
                side.sign * side.front,
                float(t),
                1,
                -side.sign,
                float(length),
                float(height),
                style,
                paint,
                float(roof),
                int(rng.integers(1 << 30)),
            )
        )
        gap = rng.uniform(2.5, 6) if side.frontage in ("garden", "park") else rng.uniform(2, 5) * (rng.random() < 0.12)
        t += length + gap
    return houses


def _closing(rng: np.random.Generator, end: float) -> list[House]:
    houses: list[House] = []
    s = -70.0
    while s < 70:
        length = rng.uniform(8, 18)
        style = str(rng.choice(["brick", "render"]))
        colours = BRICKS if style == "brick" else RENDERS
        houses.append(
            House(
                s,
                end,
                0,
                -1,
                float(length),
                float(rng.uniform(8, 16)),
                style,
                colours[int(rng.integers(len(colours)))],
                0.0,
                int(rng.integers(1 << 30)),
            )
        )
        s += length
    return houses


def _things(
    rng: np.random.Generator, side: Side, road: float, end: float, zebra: float, parking: float, camera: Camera
) -> list[Thing]:
    things: list[Thing] = []
    kerb = side.sign * (road + 0.55)

    def add(kind: str, s: float, t: float, size: float) -> None:
        # Nothing may stand right before the lens: it would hide the street.
        if math.hypot(s - camera.s, t) > (5.5 if kind != "parked" else 7.0):
            things.append(Thing(kind, float(s), float(t), float(size), int(rng.integers(1 << 30))))

    if side.parking:
        t = rng.uniform(-6, 0)
        while t < 120:
            if rng.random() < 0.72 and not (zebra > 0 and abs(t - zebra) < 6.5):
                add("parked", side.sign * (road - parking / 2 - 0.02 + rng.uniform(-0.12, 0.1)), t, 1)
            t += rng.uniform(5.4, 6.6)
    spacing = rng.uniform(22, 32)
    for t in np.arange(rng.uniform(4, 16), min(end, 150), spacing):
        add("lamp", kerb, t, rng.uniform(5.5, 8))
    if rng.random() < 0.75:
        spacing = rng.uniform(9, 17)
        for t in np.arange(rng.uniform(7, 14), min(end, 160), spacing):
            if rng.random() < 0.85:
                add("tree", kerb + side.sign * 0.3, t + rng.uniform(-1, 1), rng.uniform(4.5, 9.5))
    for t in rng.uniform(7, 60, int(rng.integers(2, 6))):
        add("sign", kerb, t, rng.uniform(2.1, 2.7))
    if zebra > 0:
        for dt in (-2.4, 2.4):
            add("beacon", kerb, zebra + dt, 3.0)
    if rng.random() < 0.4:
        for t in np.arange(rng.uniform(3, 8), 45, rng.uniform(1.8, 3)):
            add("bollard", side.sign * (road + 0.4), t, 0.95)
    if side.frontage in ("garden", "park"):
        dense = 2.2 if side.frontage == "park" else 0.8
        for t in rng.uniform(2, min(end, 140), int(14 * dense)):
            s = side.sign * rng.uniform(side.back + 1.5, max(side.front - 1.2, side.back + 1.8))
            add("tree", s, t, rng.uniform(4, 11))
        fence = str(rng.choice(["fence", "fence", "hedge", "wall"]))
        t = rng.uniform(-12, -6)
        while t < 130:
            length = rng.uniform(6, 11)
            add(fence if rng.random() < 0.8 else "hedge", side.sign * side.back, t, length - rng.uniform(0, 1.4))
            t += length
    return things
