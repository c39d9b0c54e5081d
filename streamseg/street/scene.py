"""The plan of a synthetic street: camera, light, cross-section, houses, trees and furniture, as data.

World coordinates are metres (s, t, y): across the street, along it, and up; the road's axis is s = 0, the camera t = 0.
"""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.street.light import Light, Rgb

Floats = NDArray[np.floating[Any]]
Point = tuple[float, float, float]
"""Metres: of the world, or within a car or a figure."""
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
