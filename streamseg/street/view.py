"""From metres to polygons in the picture: the view, drawing, and cars posed on the road."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.cars import Solid
from streamseg.street.light import Light
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


def lit(light: Light, colours: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Colours [n, 3] under ambient light alone and what the sun adds, for surface normals [n, 3]."""
    up = normals[:, 2:3]
    ambient = colours * np.array(light.ambient, np.float32) * (0.66 + 0.34 * up)
    facing = np.clip(normals @ np.array(light.sun, np.float32) / max(light.sun[2], 0.45), 0, 1.25)[:, None]
    return ambient.astype(np.float32), (colours * np.array(light.direct, np.float32) * facing).astype(np.float32)


@dataclass(frozen=True, slots=True)
class PosedCar:
    """A car that heads along +t or -t, its colours lit for that direction."""

    solid: Solid
    forward: int
    corners: Floats
    counts: tuple[int, ...]
    starts: tuple[int, ...]
    normals: Floats
    centres: Floats
    ambient: Floats
    direct: Floats
    shadow: Floats
    extent: Floats
    """The second largest side of each face's box in metres: what is under a pixel is left out."""

    @classmethod
    def of(cls, solid: Solid, forward: int, light: Light) -> PosedCar:
        flip = np.array([forward, forward, 1], np.float32)
        corners = np.concatenate(solid.faces) * flip
        counts = tuple(len(f) for f in solid.faces)
        starts = tuple(int(v) for v in np.cumsum((0, *counts[:-1])))
        normals = solid.normals * flip
        ambient, direct = lit(light, solid.colours, normals)
        centres = np.array([f.mean(axis=0) for f in solid.faces], np.float32) * flip
        w, h = solid.width / 2 * 0.96, solid.length / 2 * 0.97
        up = np.array((0, 0, solid.height), np.float32)
        base = np.array([[-w, -h, 0], [w, -h, 0], [w, h, 0], [-w, h, 0]], np.float32)
        low, high = base + up * 0.55, base * np.array((0.75, 0.7, 1)) + up
        return cls(
            solid,
            forward,
            corners,
            counts,
            starts,
            normals,
            centres,
            ambient,
            direct,
            np.concatenate([base, low, high]).astype(np.float32),
            np.array([np.sort(np.ptp(f, axis=0))[1] for f in solid.faces], np.float32),
        )

    def shape(self, view: View, s: float, t: float, sunlit: float) -> Shape:
        matrix, eye = view.matrix, view.eye
        at = np.array([s, t, 0], np.float32)
        pixels, depth = project(matrix, self.corners + at)
        if depth.max() < NEAR:
            return []
        seen = ((self.centres + at - eye) * self.normals).sum(axis=1) < 0
        seen &= self.extent * view.f > 1.3 * max(float(depth.max()), NEAR)
        colours = np.minimum(self.ambient + self.direct * sunlit, 255)
        near = depth.min() < NEAR
        points = fixed(pixels)
        shape: Shape = []
        palette = colours.tolist()
        for i in np.flatnonzero(seen).tolist():
            start, count = self.starts[i], self.counts[i]
            if near:
                cut = clip_near(matrix, self.corners[start : start + count] + at)
                if len(cut) > 2:
                    shape.append((fixed(cut), palette[i]))
            else:
                shape.append((points[start : start + count], palette[i]))
        return shape
