"""Houses of the synthetic street: fronts, side walls and roofs laid into the picture where the camera sees them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.actors import View, clip_near
from streamseg.street.fronts import front, wall
from streamseg.street.ground import BUILDING, Canvas, haze
from streamseg.street.scene import Floats, House, Plan

DEPTH = 9.0
"""Metres from a front to the back of its house; the ridge runs over the middle."""


def _quad(house: House) -> tuple[Floats, Floats, Floats]:
    """Corner, and the directions of its length and height."""
    along = np.array((1, 0, 0) if house.axis == 0 else (0, 1, 0), np.float32)
    return np.array([house.s, house.t, 0], np.float32), along, np.array([0, 0, 1], np.float32)


def draw_house(canvas: Canvas, plan: Plan, view: View, house: House, noise: Floats) -> None:
    """The front, its roof and its side walls, from far to near."""
    corner, along, up = _quad(house)
    inward = np.array((0, -house.facing, 0) if house.axis == 0 else (-house.facing, 0, 0), np.float32)
    sides = []
    for end in (0.0, house.length):
        origin = corner + along * end
        normal = along * (1 if end else -1)
        if float((view.eye - origin) @ normal) > 0:
            sides.append((origin, normal))
    rng = np.random.default_rng(house.seed + 1)
    for origin, normal in sides:
        tall = house.height + house.roof
        gable = House(
            house.s,
            house.t,
            house.axis,
            house.facing,
            DEPTH,
            tall,
            house.style.replace("+shop", ""),
            house.paint,
            0,
            house.seed,
        )
        ppm = _density(view, origin, inward, DEPTH, house.height)
        if ppm:
            _place(
                canvas,
                plan,
                view,
                wall(rng, gable, ppm, noise),
                ppm,
                (origin, inward, up),
                (DEPTH, tall),
                normal,
                house.roof,
            )
    if house.roof:
        slope = inward * (DEPTH / 2) + up * house.roof
        tiles = np.array([(126, 84, 66), (84, 82, 84), (104, 70, 58), (70, 74, 82)][house.seed % 4], np.float32)
        length = float(np.linalg.norm(slope))
        ppm = _density(view, corner + up * house.height, along, house.length, length)
        if ppm:
            h, w = max(int(length * ppm), 2), max(int(house.length * ppm), 2)
            rows = 1 - 0.22 * (np.mod(np.arange(h) / ppm, 0.3) < 0.06)[:, None, None]
            speck = 1 + 0.09 * rng.standard_normal((h, w, 1))
            normal = np.cross(along, slope / length)
            normal *= np.sign(normal[2])
            _place(
                canvas,
                plan,
                view,
                (tiles * rows * speck).astype(np.float32),
                ppm,
                (corner + up * house.height, along, slope / length),
                (house.length, length),
                normal,
            )
    ppm = _density(view, corner, along, house.length, house.height)
    if ppm:
        _place(
            canvas,
            plan,
            view,
            front(house, ppm, noise, plan.light.lamps, plan.light.horizon),
            ppm,
            (corner, along, up),
            (house.length, house.height),
            -inward,
        )


def _density(view: View, corner: Floats, along: Floats, length: float, height: float) -> float:
    """Texture pixels a metre which match the picture at the nearest visible point; 0 when nothing is visible."""
    points = corner + along * np.linspace(0, length, 5, dtype=np.float32)[:, None]
    depth = (points + np.array((0, 0, height / 2), np.float32)) @ view.matrix[2, :3] + view.matrix[2, 3]
    if depth.max() < 0.5:
        return 0.0
    return float(np.clip(1.1 * view.f / max(float(depth[depth > 0.5].min()), 5.0), 4, 52))


def _place(
    canvas: Canvas,
    plan: Plan,
    view: View,
    texture: Floats,
    ppm: float,
    frame: tuple[Floats, Floats, Floats],
    size: tuple[float, float],
    normal: Floats,
    gable: float = 0.0,
) -> None:
    """Lights a flat texture and lays it over the canvas where the camera sees it."""
    origin, u, v = frame
    length, height = size
    corners = np.array([origin, origin + u * length, origin + u * length + v * height, origin + v * height])
    outline = clip_near(view.matrix, corners)
    h, w = canvas.labels.shape
    if len(outline) < 3:
        return
    x0, y0 = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(outline.max(axis=0)) + 1, (w, h)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    plane = np.linalg.inv(
        np.stack(
            [view.matrix[:, :3] @ u, view.matrix[:, :3] @ v, view.matrix[:, :3] @ origin + view.matrix[:, 3]], 1
        ).astype(float)
    )
    x, y = np.arange(x0, x1, dtype=np.float32)[None], np.arange(y0, y1, dtype=np.float32)[:, None]
    a, b, c = ((plane[i, 0] * x + plane[i, 1] * y + plane[i, 2]).astype(np.float32) for i in range(3))
    c = np.where(np.abs(c) < 1e-9, 1e-9, c)
    a, b = a / c, b / c
    inside = (c > 0) & (a >= 0) & (a < length) & (b >= 0) & (b < height)
    if gable:
        inside &= b < height - gable * np.abs(a - DEPTH / 2) / (DEPTH / 2)
    if not inside.any():
        return
    light = plan.light
    facing = max(float(normal @ np.array(light.sun, np.float32)), 0.0) / max(light.sun[2], 0.5)
    tone = np.array(light.ambient, np.float32) * 0.8 + np.array(light.direct, np.float32) * min(facing, 1.25)
    tex = np.clip(texture * tone, 0, 255)
    # Shrinking along the wall: blur what the picture cannot resolve.
    seen = max(float(np.ptp(outline[:, 0])), 1.0) / texture.shape[1]
    if seen < 0.7:
        tex = cv2.blur(tex, (min(int(1 / seen), 31), 1))
    colour = cv2.remap(
        tex, a * ppm - 0.5, texture.shape[0] - 0.5 - b * ppm, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    ao = 0.72 + 0.28 * np.clip(b / 1.2, 0, 1)
    colour = haze(colour * ao[..., None], 1 / np.maximum(c, 1e-3), plan)
    roi: NDArray[np.uint8] = canvas.rgb[y0:y1, x0:x1]
    roi[inside] = colour[inside].astype(np.uint8)
    canvas.labels[y0:y1, x0:x1][inside] = BUILDING
    canvas.order[y0:y1, x0:x1][inside] = 1e8
