"""The cars of the synthetic street as solids: faces in metres, built once for each look."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamseg.street_light import Rgb
from streamseg.street_scene import Floats

Face = Callable[..., None]
"""Adds a face: its corners, its colour and, where it is not that of the corners, its normal."""


@dataclass(frozen=True, slots=True)
class Solid:
    """A car at rest at the origin, heading +t: corners of each face [f, n, 3], its normal, colour and shine."""

    faces: tuple[Floats, ...]
    normals: Floats
    colours: Floats
    length: float
    width: float
    height: float


CAR_PAINTS: tuple[Rgb, ...] = (
    (200, 202, 204),
    (150, 153, 157),
    (62, 64, 68),
    (34, 35, 38),
    (228, 228, 226),
    (140, 28, 30),
    (36, 56, 110),
    (70, 96, 120),
    (48, 72, 58),
    (176, 164, 140),
    (186, 88, 36),
    (96, 100, 106),
)

# kind: length, width, height, belt, bonnet height, greenhouse base front/back and top front/back as shares of length
CAR_KINDS: dict[str, tuple[float, ...]] = {
    "hatch": (3.95, 1.74, 1.48, 0.93, 0.82, 0.24, -0.47, 0.06, -0.36),
    "saloon": (4.65, 1.82, 1.44, 0.92, 0.8, 0.2, -0.36, 0.04, -0.22),
    "estate": (4.7, 1.82, 1.5, 0.94, 0.82, 0.2, -0.48, 0.04, -0.42),
    "suv": (4.5, 1.88, 1.7, 1.08, 1.0, 0.23, -0.48, 0.08, -0.42),
    "van": (5.2, 1.98, 2.25, 1.15, 1.05, 0.36, -0.5, 0.22, -0.49),
    "bus": (10.5, 2.5, 3.0, 1.15, 1.1, 0.5, -0.5, 0.485, -0.49),
}
GLASS: Rgb = (40, 48, 54)
LENS: Rgb = (235, 238, 230)


def car(kind: str, colour: Rgb, lamps: bool) -> Solid:
    """Builds the faces: bonnet, sides in bands, greenhouse with glass, wheels, lamps, bumpers, plates."""
    length, width, height, belt, bonnet, gf, gb, tf, tb = CAR_KINDS[kind]
    hw, half = width / 2, length / 2
    faces: list[Floats] = []
    normals: list[tuple[float, ...]] = []
    colours: list[Rgb] = []

    def face(
        points: list[tuple[float, float, float]], tone: Rgb, normal: tuple[float, float, float] | None = None
    ) -> None:
        p = np.array(points, np.float32)
        n = np.cross(p[1] - p[0], p[2] - p[0]) if normal is None else np.array(normal, np.float32)
        faces.append(p)
        normals.append(tuple(n / (np.linalg.norm(n) + 1e-9)))
        colours.append(tone)

    plastic: Rgb = (0.5 * colour[0] + 8, 0.5 * colour[1] + 8, 0.5 * colour[2] + 8)
    boxy = kind in ("van", "bus")
    # Stations along the length: position, half width, shoulder height.
    tail = belt if boxy or kind in ("hatch", "estate", "suv") else belt - 0.02
    stations = [
        (-0.5, 0.86, tail - 0.1),
        (-0.46, 0.97, tail),
        (gb if gb > -0.45 else -0.3, 1.0, belt),
        (0.0, 1.0, belt),
        (gf, 0.99, belt - 0.02),
        (0.36 if gf < 0.3 else 0.46, 0.97, bonnet),
        (0.46 if gf < 0.3 else 0.48, 0.9, bonnet - 0.1),
        (0.5, 0.8, bonnet - 0.22),
    ]
    rings = [
        [
            (hw * w * 0.94, x * length, 0.2),
            (hw * w, x * length, 0.38),
            (hw * w, x * length, 0.62),
            (hw * w * 0.95, x * length, h),
        ]
        for x, w, h in stations
    ]
    for side in (-1, 1):
        for a, b in pairwise(rings):
            for i in range(3):
                quad = [(side * p[0], p[1], p[2]) for p in (a[i], b[i], b[i + 1], a[i + 1])]
                n = (
                    float(side),
                    side * 0.0 - (b[i][0] - a[i][0]) / max(b[i][1] - a[i][1], 0.1),
                    (-0.25, 0.05, 0.35)[i],
                )
                face(quad, plastic if i == 0 else colour, n)
    for end, sign in ((rings[0], -1), (rings[-1], 1)):
        for i in range(3):
            (ax, ay, az), (bx, by, bz) = end[i], end[i + 1]
            face(
                [(-ax, ay, az), (ax, ay, az), (bx, by, bz), (-bx, by, bz)],
                plastic if i == 0 else colour,
                (0, sign, (-0.2, 0.05, 0.3)[i]),
            )
    for a, b in pairwise(rings):
        face(
            [(-a[3][0], *a[3][1:]), (a[3][0], *a[3][1:]), (b[3][0], *b[3][1:]), (-b[3][0], *b[3][1:])],
            colour,
            (0, (a[3][2] - b[3][2]) / max(b[3][1] - a[3][1], 0.1), 1),
        )
    _wheels(face, hw, length, boxy)
    _lights(face, hw, half, bonnet, belt, tail, lamps, height if boxy else 0.0)
    _seams(face, hw, belt, bonnet, colour, (gf * length, gb * length, length), boxy)
    _cabin(face, kind, colour, hw, length, height, belt, (gf, gb, tf, tb))
    return Solid(tuple(faces), np.array(normals, np.float32), np.array(colours, np.float32), length, width, height)


def _wheels(face: Face, hw: float, length: float, boxy: bool) -> None:
    radius = 0.46 if length > 9 else 0.33
    angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    for x in (-0.3, 0.31):
        for side in (-1, 1):
            for r, tone, out in (
                (radius * 1.16, (14, 14, 15), 1.0),
                (radius, (26, 26, 27), 1.01),
                (radius * 0.64, (138, 140, 143), 1.012),
                (radius * 0.42, (84, 86, 88), 1.014),
                (radius * 0.16, (150, 150, 152), 1.016),
            ):
                face(
                    [(side * hw * out, x * length + r * math.cos(v), radius + r * math.sin(v)) for v in angles],
                    tone,
                    (side, 0, 0),
                )


def _lights(
    face: Face, hw: float, half: float, bonnet: float, belt: float, tail: float, lamps: bool, tall: float
) -> None:
    e = 0.012
    for side in (-1, 1):
        a, b = side * hw * 0.5, side * hw * 0.79
        front: Rgb = (400, 400, 360) if lamps else LENS
        face(
            [
                (a, half + e, bonnet - 0.34),
                (b, half + e, bonnet - 0.33),
                (b, half + e, bonnet - 0.23),
                (a, half + e, bonnet - 0.25),
            ],
            front,
            (0, 1, 0.3),
        )
        a, b = side * hw * 0.6, side * hw * 0.85
        low = tail - (0.34 if not tall else 0.5)
        face(
            [(a, -half - e, low), (b, -half - e, low), (b, -half - e, tail - 0.14), (a, -half - e, tail - 0.14)],
            (235, 40, 30) if lamps else (150, 22, 20),
            (0, -1, 0.2),
        )
    grille = hw * 0.44
    face(
        [
            (-grille, half + e, 0.4),
            (grille, half + e, 0.4),
            (grille, half + e, bonnet - 0.28),
            (-grille, half + e, bonnet - 0.28),
        ],
        (24, 25, 27),
        (0, 1, 0.2),
    )
    for sign, y in ((1, 0.36), (-1, 0.52)):
        face(
            [
                (-0.26, sign * (half + 2 * e), y),
                (0.26, sign * (half + 2 * e), y),
                (0.26, sign * (half + 2 * e), y + 0.11),
                (-0.26, sign * (half + 2 * e), y + 0.11),
            ],
            (225, 222, 190) if sign < 0 else (235, 235, 235),
            (0, sign, 0.1),
        )


def _seams(
    face: Face, hw: float, belt: float, bonnet: float, colour: Rgb, along: tuple[float, float, float], boxy: bool
) -> None:
    """Doors, handles, sills, mirrors and the lines of the bonnet."""
    gf, gb, length = along
    dark: Rgb = (22, 22, 24)
    soft: Rgb = (colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62)
    middle = (gf + gb) / 2 + 0.1
    for side in (-1, 1):
        x = side * (hw + 0.004)
        for y in (gf - 0.28, middle, gb + 0.5)[: 2 if boxy else 3]:
            face(
                [(x, y, 0.34), (x, y + 0.022, 0.34), (x * 0.96, y + 0.022, belt - 0.03), (x * 0.96, y, belt - 0.03)],
                dark,
                (side, 0, 0.1),
            )
        for y in (middle + 0.16, gb + 0.72)[: 1 if boxy else 2]:
            face(
                [(x, y, belt - 0.2), (x, y + 0.19, belt - 0.2), (x, y + 0.19, belt - 0.16), (x, y, belt - 0.16)],
                (70, 70, 72),
                (side, 0, 0.1),
            )
        face(
            [(x, -0.2 * length, 0.27), (x, 0.22 * length, 0.27), (x, 0.22 * length, 0.33), (x, -0.2 * length, 0.33)],
            dark,
            (side, 0, 0),
        )
        face(
            [
                (x * 0.9, gf - 0.42, belt + 0.02),
                (x * 1.13, gf - 0.46, belt + 0.04),
                (x * 1.13, gf - 0.46, belt + 0.18),
                (x * 0.9, gf - 0.42, belt + 0.16),
            ],
            (44, 46, 50),
            (0, -1, 0.1),
        )
        face(
            [
                (x * 0.9, gf - 0.4, belt + 0.02),
                (x * 1.13, gf - 0.4, belt + 0.02),
                (x * 1.13, gf - 0.36, belt + 0.18),
                (x * 0.9, gf - 0.36, belt + 0.18),
            ],
            (44, 46, 50),
            (0, 1, 0.1),
        )
        if not boxy:
            a, b = side * hw * 0.62, side * hw * 0.5
            face(
                [
                    (a, gf + 0.05, belt + 0.004),
                    (a + side * 0.014, gf + 0.05, belt + 0.004),
                    (b + side * 0.014, 0.46 * length, bonnet - 0.06),
                    (b, 0.46 * length, bonnet - 0.06),
                ],
                soft,
                (0, 0.1, 1),
            )


def _cabin(
    face: Face, kind: str, colour: Rgb, hw: float, length: float, height: float, belt: float, cut: tuple[float, ...]
) -> None:
    gf, gb, tf, tb = (c * length for c in cut)
    base, top = hw * 0.93, hw * (0.9 if kind in ("van", "bus") else 0.74)
    low, high = belt - 0.02, height
    roof = high - 0.04

    def at(side: float, along: float, up: float, inset: float = 0.0) -> tuple[float, float, float]:
        """A point on a cabin side: `along` 0 (rear) to 1 (front), `up` 0 to 1."""
        x0, x1 = gb + (tb - gb) * up, gf + (tf - gf) * up
        return (side * (base + (top - base) * up + inset), x0 + (x1 - x0) * along, low + (roof - low) * up)

    panes = {
        "van": [(0.72, 0.97)],
        "bus": [(i / 8 + 0.01, i / 8 + 0.115) for i in range(8)],
        "saloon": [(0.1, 0.47), (0.52, 0.92)],
        "hatch": [(0.14, 0.48), (0.53, 0.93)],
    }.get(kind, [(0.05, 0.3), (0.34, 0.62), (0.66, 0.94)])
    slope = (base - top) / (roof - low)
    for side in (-1, 1):
        face([at(side, 0, 0), at(side, 1, 0), at(side, 1, 1), at(side, 0, 1)], colour, (side, 0, slope))
        for a, b in panes:
            face(
                [at(side, a, 0.1, 0.005), at(side, b, 0.1, 0.005), at(side, b, 0.9, 0.005), at(side, a, 0.9, 0.005)],
                GLASS,
                (side, 0, slope),
            )
            face(
                [at(side, a, 0.6, 0.007), at(side, b, 0.5, 0.007), at(side, b, 0.9, 0.007), at(side, a, 0.9, 0.007)],
                (66, 78, 88),
                (side, 0, slope),
            )
    for along, sign, x0, x1 in ((1.0, 1, gf, tf), (0.0, -1, gb, tb)):
        n = (0.0, sign * (roof - low), abs(x0 - x1))
        face([at(-1, along, 0), at(1, along, 0), at(1, along, 1), at(-1, along, 1)], colour, n)
        if sign < 0 and kind == "van":
            continue
        for u0, u1, tone in ((0.06, 0.93, GLASS), (0.5, 0.93, (74, 86, 96))):
            face([at(s * 0.9, along, u) for s, u in ((-1, u0), (1, u0), (1, u1), (-1, u1))], tone, n)
    for x0, x1, y0, y1, rise in (
        (tb, tb + 0.2, roof, high, -0.3),
        (tb + 0.2, tf - 0.25, high, high, 0.0),
        (tf - 0.25, tf, high, roof, 0.3),
    ):
        t0, t1 = (top if y0 < high else top * 0.97), (top if y1 < high else top * 0.97)
        face([(-t0, x0, y0), (t0, x0, y0), (t1, x1, y1), (-t1, x1, y1)], colour, (0, rise, 1))
