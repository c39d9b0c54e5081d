"""What is fixed to the body of a car in the synthetic street: wheels, lamps, doors, mirrors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from streamseg.street.light import Rgb

LENS: Rgb = (235, 238, 230)

Face = Callable[..., None]
"""Adds a face: its corners, its colour and, where it is not that of the corners, its normal."""


def wheels(face: Face, hw: float, length: float) -> None:
    """Arches, tyres, rims and hubs."""
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


def lights(face: Face, hw: float, half: float, bonnet: float, tail: float, lamps: bool, tall: float) -> None:
    """Lamps, grille and plates."""
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


def seams(
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
