"""Houses of the synthetic street: fronts, side walls and roofs laid into the picture where the camera sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.fronts import front, wall
from streamseg.street.ground import BUILDING, Canvas, haze
from streamseg.street.scene import Floats, House, Plan
from streamseg.street.view import View, clip_near

Basis = tuple[Floats, Floats, Floats]
"""A corner of a flat surface, and the unit directions of its length and height."""
Size = tuple[float, float]
"""Metres of length and height."""
DEPTH = 9.0
"""Metres from a front to the back of its house; the ridge runs over the middle."""
UP = np.array([0, 0, 1], np.float32)


def draw_house(canvas: Canvas, plan: Plan, view: View, house: House, noise: Floats) -> None:
    """The front, its roof and its side walls, from far to near."""
    corner = np.array([house.s, house.t, 0], np.float32)
    along = np.array((1, 0, 0) if house.axis == 0 else (0, 1, 0), np.float32)
    inward = np.array((0, -house.facing, 0) if house.axis == 0 else (-house.facing, 0, 0), np.float32)
    rng = np.random.default_rng(house.seed + 1)

    def lay(
        texture: Callable[[float], Floats], basis: Basis, size: Size, middle: float, normal: Floats, gable: float = 0.0
    ) -> None:
        if ppm := _density(view, basis[0], basis[1], size[0], middle):
            _place(canvas, plan, view, texture(ppm), ppm, basis, size, normal, gable)

    tall = house.height + house.roof
    side = replace(house, length=DEPTH, height=tall, style=house.style.replace("+shop", ""))
    for end in (0.0, house.length):
        origin, outward = corner + along * end, along * (1 if end else -1)
        if float((view.eye - origin) @ outward) > 0:
            basis: Basis = (origin, inward, UP)
            lay(lambda ppm: wall(rng, side, ppm, noise), basis, (DEPTH, tall), house.height, outward, house.roof)
    if house.roof:
        slope = inward * (DEPTH / 2) + UP * house.roof
        length = float(np.linalg.norm(slope))
        skyward = np.cross(along, slope / length)
        skyward *= np.sign(skyward[2])
        basis = (corner + UP * house.height, along, slope / length)
        lay(lambda ppm: _tiles(rng, house, length, ppm), basis, (house.length, length), length, skyward)
    size = (house.length, house.height)
    lay(lambda ppm: front(house, ppm, noise, plan.light), (corner, along, UP), size, house.height, -inward)


def _tiles(rng: np.random.Generator, house: House, slope: float, ppm: float) -> Floats:
    """A roof of that many metres from eaves to ridge."""
    colour = np.array([(126, 84, 66), (84, 82, 84), (104, 70, 58), (70, 74, 82)][house.seed % 4], np.float32)
    h, w = max(int(slope * ppm), 2), max(int(house.length * ppm), 2)
    rows = 1 - 0.22 * (np.mod(np.arange(h) / ppm, 0.3) < 0.06)[:, None, None]
    speck = 1 + 0.09 * rng.standard_normal((h, w, 1))
    return (colour * rows * speck).astype(np.float32)


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
    basis: Basis,
    size: Size,
    normal: Floats,
    gable: float,
) -> None:
    """Lights a flat texture and lays it over the canvas where the camera sees it."""
    origin, u, v = basis
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
    turn, shift = view.matrix[:, :3], view.matrix[:, 3]
    plane = np.linalg.inv(np.stack([turn @ u, turn @ v, turn @ origin + shift], 1).astype(float))
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
