"""What is fixed to the body of a car in the synthetic street: wheels, lamps, doors, mirrors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from streamseg.street.light import Rgb
from streamseg.street.scene import Point

LENS: Rgb = (235, 238, 230)

Face = Callable[[list[Point], Rgb, Point], None]
"""Adds a face: its corners, its colour and its normal, of any length."""


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
                rim = [(side * hw * out, x * length + r * math.cos(v), radius + r * math.sin(v)) for v in angles]
                face(rim, tone, (side, 0, 0))


def lights(face: Face, hw: float, half: float, bonnet: float, tail: float, lamps: bool, tall: float) -> None:
    """Lamps, grille and plates."""
    e = 0.012
    front: Rgb = (400, 400, 360) if lamps else LENS
    rear: Rgb = (235, 40, 30) if lamps else (150, 22, 20)
    for side in (-1, 1):
        a, b = side * hw * 0.5, side * hw * 0.79
        heights = ((a, bonnet - 0.34), (b, bonnet - 0.33), (b, bonnet - 0.23), (a, bonnet - 0.25))
        face([(x, half + e, y) for x, y in heights], front, (0, 1, 0.3))
        low = tail - (0.34 if not tall else 0.5)
        face(_across(side * hw * 0.6, side * hw * 0.85, -half - e, low, tail - 0.14), rear, (0, -1, 0.2))
    grille = hw * 0.44
    face(_across(-grille, grille, half + e, 0.4, bonnet - 0.28), (24, 25, 27), (0, 1, 0.2))
    for sign, y in ((1, 0.36), (-1, 0.52)):
        plate = _across(-0.26, 0.26, sign * (half + 2 * e), y, y + 0.11)
        face(plate, (225, 222, 190) if sign < 0 else (235, 235, 235), (0, sign, 0.1))


def _across(x0: float, x1: float, along: float, low: float, high: float) -> list[Point]:
    """A rectangle that faces along the car."""
    return [(x0, along, low), (x1, along, low), (x1, along, high), (x0, along, high)]


def _beside(x: float, y0: float, y1: float, low: float, high: float, lean: float = 1.0) -> list[Point]:
    """A rectangle on a side of the car, its upper edge at `lean` times `x`."""
    return [(x, y0, low), (x, y1, low), (x * lean, y1, high), (x * lean, y0, high)]


def seams(
    face: Face, hw: float, belt: float, bonnet: float, colour: Rgb, along: tuple[float, float, float], boxy: bool
) -> None:
    """Doors, handles, sills, mirrors and the lines of the bonnet."""
    gf, gb, length = along
    dark: Rgb = (22, 22, 24)
    mirror: Rgb = (44, 46, 50)
    soft: Rgb = (colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62)
    middle = (gf + gb) / 2 + 0.1
    for side in (-1, 1):
        x = side * (hw + 0.004)
        for y in (gf - 0.28, middle, gb + 0.5)[: 2 if boxy else 3]:
            face(_beside(x, y, y + 0.022, 0.34, belt - 0.03, lean=0.96), dark, (side, 0, 0.1))
        for y in (middle + 0.16, gb + 0.72)[: 1 if boxy else 2]:
            face(_beside(x, y, y + 0.19, belt - 0.2, belt - 0.16), (70, 70, 72), (side, 0, 0.1))
        face(_beside(x, -0.2 * length, 0.22 * length, 0.27, 0.33), dark, (side, 0, 0))
        a, b, low, high = x * 0.9, x * 1.13, belt + 0.02, belt + 0.18
        back = [(a, gf - 0.42, low), (b, gf - 0.46, belt + 0.04), (b, gf - 0.46, high), (a, gf - 0.42, belt + 0.16)]
        face(back, mirror, (0, -1, 0.1))
        face([(a, gf - 0.4, low), (b, gf - 0.4, low), (b, gf - 0.36, high), (a, gf - 0.36, high)], mirror, (0, 1, 0.1))
        if not boxy:
            a, b = side * hw * 0.62, side * hw * 0.5
            begin, end, thin = (gf + 0.05, belt + 0.004), (0.46 * length, bonnet - 0.06), side * 0.014
            face([(a, *begin), (a + thin, *begin), (b + thin, *end), (b, *end)], soft, (0, 0.1, 1))
