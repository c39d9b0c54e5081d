"""From metres to polygons in the picture, and their drawing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.scene import NEAR, Camera, Floats

I32 = NDArray[np.int32]
Shape = list[tuple[I32, tuple[float, float, float]]]
"""Convex polygons in drawing order: points i32 [n, 2] in 1/16 pixel, and their colour."""
SHIFT = 4


@dataclass(frozen=True, slots=True)
class View:
    """A camera ready to project: 3x4 matrix, eye (s, t, y) and focal length in pixels."""

    matrix: Floats
    eye: Floats
    f: float

    @classmethod
    def of(cls, camera: Camera) -> View:
        return cls(camera.matrix(), np.array([camera.s, 0, camera.y], np.float32), camera.f)


def paint(image: NDArray[np.uint8], shape: Shape) -> None:
    for points, colour in shape:
        cv2.fillConvexPoly(image, points, colour, cv2.LINE_AA, SHIFT)


def cover(image: NDArray[np.uint8], shape: Shape, value: int) -> None:
    """Every pixel of the shape becomes `value`, without blended edges."""
    for points, _ in shape:
        cv2.fillConvexPoly(image, points, (value,), cv2.LINE_8, SHIFT)


def project(matrix: Floats, points: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """World [n, 3] -> pixels [n, 2] and depth [n]; pixels are meaningless where the depth is below NEAR."""
    homogeneous = points @ matrix[:, :3].T + matrix[:, 3]
    depth = homogeneous[:, 2]
    return homogeneous[:, :2] / np.maximum(depth, 1e-3)[:, None], depth


def clip_near(matrix: Floats, polygon: NDArray[np.floating]) -> Floats:
    """A world polygon [n, 3] cut at the near plane and projected: pixels [m, 2], m may be 0."""
    h = polygon @ matrix[:, :3].T + matrix[:, 3]
    out = []
    for a, b in zip(h, np.roll(h, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            out.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            out.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
    if not out:
        return np.zeros((0, 2), np.float32)
    points = np.array(out, np.float32)
    return points[:, :2] / points[:, 2:]


def fixed(points: NDArray[np.floating]) -> I32:
    out: I32 = np.rint(np.clip(points, -30000, 30000) * (1 << SHIFT)).astype(np.int32)
    return out
