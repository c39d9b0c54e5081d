"""The cars of the synthetic street: solids of faces in metres, built once for each look, and posed on the road."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamseg.street.car_parts import Face, lights, seams, wheels
from streamseg.street.light import Light, Rgb
from streamseg.street.scene import NEAR, Floats, Point
from streamseg.street.view import Shape, View, clip_near, fixed, project


@dataclass(frozen=True, slots=True)
class Solid:
    """A car at rest at the origin, heading +t: corners of each face [f, n, 3], its normal and colour."""

    faces: tuple[Floats, ...]
    normals: Floats
    colours: Floats
    length: float
    width: float
    height: float


CAR_PAINTS: tuple[Rgb, ...] = (
    (200, 202, 204), (150, 153, 157), (62, 64, 68), (34, 35, 38), (228, 228, 226), (140, 28, 30),
    (36, 56, 110), (70, 96, 120), (48, 72, 58), (176, 164, 140), (186, 88, 36), (96, 100, 106),
)  # fmt: skip

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


def car(kind: str, colour: Rgb, lamps: bool) -> Solid:
    """Builds the faces: bonnet, sides in bands, greenhouse with glass, wheels, lamps, bumpers, plates."""
    length, width, height, belt, bonnet, gf, gb, tf, tb = CAR_KINDS[kind]
    hw, half = width / 2, length / 2
    faces: list[Floats] = []
    normals: list[Floats] = []
    colours: list[Rgb] = []

    def face(points: list[Point], tone: Rgb, normal: Point) -> None:
        n = np.array(normal, np.float32)
        faces.append(np.array(points, np.float32))
        normals.append(n / (np.linalg.norm(n) + 1e-9))
        colours.append(tone)

    boxy = kind in ("van", "bus")
    tail = belt if boxy or kind in ("hatch", "estate", "suv") else belt - 0.02
    _shell(face, hw, length, (belt, bonnet, tail), (gf, gb), colour)
    wheels(face, hw, length)
    lights(face, hw, half, bonnet, tail, lamps, height if boxy else 0.0)
    seams(face, hw, belt, bonnet, colour, (gf * length, gb * length, length), boxy)
    _cabin(face, kind, colour, hw, length, height, belt, (gf, gb, tf, tb))
    return Solid(tuple(faces), np.array(normals, np.float32), np.array(colours, np.float32), length, width, height)


def _shell(
    face: Face, hw: float, length: float, heights: tuple[float, float, float], cut: tuple[float, float], colour: Rgb
) -> None:
    """The body below the windows: sides in three bands, both ends, bonnet and boot."""
    (belt, bonnet, tail), (gf, gb) = heights, cut
    plastic: Rgb = (0.5 * colour[0] + 8, 0.5 * colour[1] + 8, 0.5 * colour[2] + 8)
    # Stations along the length: position, half width, shoulder height.
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
        [(hw * w * share, x * length, z) for share, z in ((0.94, 0.2), (1, 0.38), (1, 0.62), (0.95, h))]
        for x, w, h in stations
    ]
    for side in (-1, 1):
        for a, b in pairwise(rings):
            for i in range(3):
                quad = [(side * p[0], p[1], p[2]) for p in (a[i], b[i], b[i + 1], a[i + 1])]
                taper = (a[i][0] - b[i][0]) / max(b[i][1] - a[i][1], 0.1)
                face(quad, plastic if i == 0 else colour, (side, taper, (-0.25, 0.05, 0.35)[i]))
    for end, sign in ((rings[0], -1), (rings[-1], 1)):
        for i in range(3):
            (ax, ay, az), (bx, by, bz) = end[i], end[i + 1]
            quad = [(-ax, ay, az), (ax, ay, az), (bx, by, bz), (-bx, by, bz)]
            face(quad, plastic if i == 0 else colour, (0, sign, (-0.2, 0.05, 0.3)[i]))
    for (ax, ay, az), (bx, by, bz) in pairwise(ring[3] for ring in rings):
        top = [(-ax, ay, az), (ax, ay, az), (bx, by, bz), (-bx, by, bz)]
        face(top, colour, (0, (az - bz) / max(by - ay, 0.1), 1))


def _cabin(
    face: Face, kind: str, colour: Rgb, hw: float, length: float, height: float, belt: float, cut: tuple[float, ...]
) -> None:
    gf, gb, tf, tb = (c * length for c in cut)
    base, top = hw * 0.93, hw * (0.9 if kind in ("van", "bus") else 0.74)
    low, high = belt - 0.02, height
    roof = high - 0.04

    def at(side: float, along: float, up: float, inset: float = 0.0) -> Point:
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
            for rear, front, out, tone in ((0.1, 0.1, 0.005, GLASS), (0.6, 0.5, 0.007, (66, 78, 88))):  # and its shine
                pane = [at(side, a, rear, out), at(side, b, front, out), at(side, b, 0.9, out), at(side, a, 0.9, out)]
                face(pane, tone, (side, 0, slope))
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


def lit(light: Light, colours: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Colours [n, 3] under ambient light alone and what the sun adds, for surface normals [n, 3]."""
    up = normals[:, 2:3]
    ambient = colours * np.array(light.ambient, np.float32) * (0.66 + 0.34 * up)
    facing = np.clip(normals @ np.array(light.sun, np.float32) / max(light.sun[2], 0.45), 0, 1.25)[:, None]
    return ambient.astype(np.float32), (colours * np.array(light.direct, np.float32) * facing).astype(np.float32)


@dataclass(frozen=True, slots=True)
class PosedCar:
    """A car that heads along +t or -t, its colours lit for that direction."""

    corners: Floats
    parts: tuple[slice, ...]
    """Of the corners: each face's own."""
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
        starts = np.cumsum([0, *map(len, solid.faces)]).tolist()
        normals = solid.normals * flip
        ambient, direct = lit(light, solid.colours, normals)
        w, h = solid.width / 2 * 0.96, solid.length / 2 * 0.97
        up = np.array((0, 0, solid.height), np.float32)
        base = np.array([[-w, -h, 0], [w, -h, 0], [w, h, 0], [-w, h, 0]], np.float32)
        low, high = base + up * 0.55, base * np.array((0.75, 0.7, 1)) + up
        return cls(
            corners=np.concatenate(solid.faces) * flip,
            parts=tuple(slice(*ends) for ends in pairwise(starts)),
            normals=normals,
            centres=np.array([f.mean(axis=0) for f in solid.faces], np.float32) * flip,
            ambient=ambient,
            direct=direct,
            shadow=np.concatenate([base, low, high]).astype(np.float32),
            extent=np.array([np.sort(np.ptp(f, axis=0))[1] for f in solid.faces], np.float32),
        )

    def shape(self, view: View, s: float, t: float, sunlit: float) -> Shape:
        at = np.array([s, t, 0], np.float32)
        pixels, depth = project(view.matrix, self.corners + at)
        if depth.max() < NEAR:
            return []
        seen = ((self.centres + at - view.eye) * self.normals).sum(axis=1) < 0
        seen &= self.extent * view.f > 1.3 * max(float(depth.max()), NEAR)
        palette = np.minimum(self.ambient + self.direct * sunlit, 255).tolist()
        faces = np.flatnonzero(seen).tolist()
        if depth.min() >= NEAR:
            points = fixed(pixels)
            return [(points[self.parts[i]], palette[i]) for i in faces]
        cut = [(clip_near(view.matrix, self.corners[self.parts[i]] + at), palette[i]) for i in faces]
        return [(fixed(outline), colour) for outline, colour in cut if len(outline) > 2]
