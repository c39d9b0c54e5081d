"""Draws the plan of a street from its seed: what is where, and from where the camera looks at it."""

from __future__ import annotations

import math

import numpy as np

from streamseg.street.light import Rgb, daylight
from streamseg.street.scene import Camera, House, Plan, Side, Thing

BRICKS: tuple[Rgb, ...] = (
    (150, 88, 68), (168, 112, 84), (136, 98, 80), (186, 150, 110), (120, 74, 62), (172, 142, 122)
)  # fmt: skip
RENDERS: tuple[Rgb, ...] = (
    (222, 214, 196), (206, 196, 176), (226, 222, 214), (196, 178, 150),
    (176, 186, 190), (214, 186, 160), (190, 198, 180), (200, 170, 160),
)  # fmt: skip
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
    light = daylight(rng)
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
    return Plan(
        seed=seed,
        camera=camera,
        light=light,
        lane=lane,
        bike=bike,
        parking=parking,
        road=road,
        end=end,
        zebra=zebra,
        drive_left=bool(rng.random() < 0.5),
        sides=sides,
        houses=tuple(houses),
        things=tuple(things),
        busy=float(rng.uniform(0.35, 1.0)),
        strips=tuple(sorted([0.0, *(float(e) for e in edges)])),
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


def _houses(rng: np.random.Generator, side: Side, end: float) -> list[House]:
    houses: list[House] = []
    t = rng.uniform(-22, -14)
    base = rng.uniform(6, 9) if side.frontage == "garden" else rng.uniform(8, 15)
    while t < end:
        if side.frontage == "office":
            length, height = rng.uniform(16, 34), rng.uniform(12, 26)
            style = str(rng.choice(["concrete", "glass", "brick"]))
        elif side.frontage in ("garden", "park"):
            length, height = rng.uniform(7, 13), base + rng.uniform(-1, 1)
            style = str(rng.choice(["brick", "render"]))
        else:
            length, height = rng.uniform(5.5, 14), base + rng.uniform(-2, 3)
            style = str(rng.choice(["brick", "brick", "render"]))
            style += "+shop" if side.frontage == "shops" or rng.random() < 0.2 else ""
        colours = BRICKS if "brick" in style else RENDERS if "render" in style else CONCRETES
        paint = colours[int(rng.integers(len(colours)))]
        roof = 0.0 if side.frontage == "office" or rng.random() < 0.3 else rng.uniform(2, 3.4)
        own = int(rng.integers(1 << 30))
        s, size = side.sign * side.front, (float(length), float(height))
        houses.append(House(s, float(t), 1, -side.sign, *size, style, paint, float(roof), own))
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
        height = float(rng.uniform(8, 16))
        paint = colours[int(rng.integers(len(colours)))]
        houses.append(House(s, end, 0, -1, float(length), height, style, paint, 0.0, int(rng.integers(1 << 30))))
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
