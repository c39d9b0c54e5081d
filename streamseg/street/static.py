"""The still picture of the synthetic street, put together from the back, and the shadows on its ground."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamseg.street.facade import draw_house
from streamseg.street.furniture import Furniture
from streamseg.street.ground import SHADOW_PPM, SHADOW_S, SHADOW_T, TILE, Canvas, ground, noise_tile, sky
from streamseg.street.scene import Floats, Plan
from streamseg.street.view import View


def shadow_map(plan: Plan, noise: Floats) -> Floats:
    """How much of the sun reaches the ground: f32 in steps of 1/SHADOW_PPM m from (-SHADOW_S, -SHADOW_T)."""
    shape = (int((plan.end + SHADOW_T) * SHADOW_PPM), int(2 * SHADOW_S * SHADOW_PPM))
    dark = np.zeros(shape, np.uint8)
    sun = plan.light.sun
    throw = np.array(sun[:2]) / -max(sun[2], 0.12)

    def at(points: NDArray[np.floating]) -> NDArray[np.int32]:
        out: NDArray[np.int32] = np.rint((points + np.array((SHADOW_S, SHADOW_T))) * SHADOW_PPM).astype(np.int32)
        return out

    def cast(onto: NDArray[np.uint8], base: ArrayLike, height: float) -> None:
        """What stands on `base` [n, 2], so high."""
        foot = np.asarray(base)
        cv2.fillConvexPoly(onto, cv2.convexHull(at(np.concatenate([foot, foot + throw * height]))), (255,))

    soft = plan.light.direct[0] < 0.1
    trees = np.zeros(shape, np.uint8)
    if not soft:
        for house in plan.houses:
            if house.axis == 1:
                back = house.s - house.facing * 9.0
                t0, t1 = house.t, house.t + house.length
                cast(dark, [(house.s, t0), (house.s, t1), (back, t1), (back, t0)], house.height)
        for thing in plan.things:
            foot = np.array((thing.s, thing.t))
            if thing.kind == "tree":
                centre = at((foot + throw * thing.size * 0.62)[None])[0]
                r = thing.size * 0.34 * SHADOW_PPM
                stretch = 1 + abs(float(np.hypot(*throw))) * 0.5
                angle = math.degrees(math.atan2(throw[1], throw[0]))
                cv2.ellipse(
                    trees, (int(centre[0]), int(centre[1])), (int(r * stretch), int(r)), angle, 0, 360, (255,), -1
                )
                cv2.line(dark, at(foot[None])[0].tolist(), centre.tolist(), (255,), max(int(0.25 * SHADOW_PPM), 1))
            elif thing.kind in ("lamp", "sign", "beacon", "bollard"):
                cv2.line(dark, at(foot[None])[0].tolist(), at((foot + throw * thing.size)[None])[0].tolist(), (190,), 1)
            elif thing.kind in ("fence", "hedge", "wall"):
                cast(dark, [foot, foot + np.array((0.0, thing.size))], 1.1)
    blur = cv2.GaussianBlur(dark, (0, 0), 0.12 * SHADOW_PPM).astype(np.float32) / 255
    ys, xs = np.mod(np.arange(shape[0]) * 5, TILE)[:, None], np.mod(np.arange(shape[1]) * 5, TILE)[None]
    leaves = cv2.GaussianBlur(trees, (0, 0), 0.5 * SHADOW_PPM).astype(np.float32) / 255
    blur = np.maximum(blur, np.clip((leaves * 2.0 - 0.55 + noise[ys, xs] * 0.9) * 1.5, 0, 0.92))
    contact = np.zeros(shape, np.uint8)
    for thing in plan.things:
        if thing.kind == "parked":
            box = np.array([(-0.9, -2.2), (0.9, -2.2), (0.9, 2.2), (-0.9, 2.2)]) + np.array((thing.s, thing.t))
            cast(contact, box, 0.55 * (not soft))
    near = cv2.GaussianBlur(contact, (0, 0), (0.5 if soft else 0.18) * SHADOW_PPM).astype(np.float32) / 255
    out: Floats = np.maximum(1 - blur, 0) * (1 - (0.75 if not soft else 0.5) * near) - (0.5 if soft else 0.2) * near
    return out


def still(plan: Plan, scale: int) -> tuple[Canvas, Floats]:
    """Draws all that never moves, `scale` times as large, and the shadow map."""
    camera = plan.camera.scaled(scale)
    big = replace(plan, camera=camera)
    h, w = camera.height, camera.width
    canvas = Canvas(np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8), np.zeros((h, w), np.float32))
    noise = noise_tile(np.random.default_rng([plan.seed, 3]))
    grit = noise_tile(np.random.default_rng([plan.seed, 4]), octaves=(256, 128, 64))
    shadow = shadow_map(plan, noise)
    view = View.of(camera)
    sky(canvas, big, noise)
    ground(canvas, big, noise, grit, shadow)
    houses = sorted(plan.houses, key=lambda x: -(math.hypot(x.s, x.t + x.length / 2) + (x.axis == 0) * 1e4))
    furniture = Furniture(canvas, big, view)
    for house in houses:
        draw_house(canvas, big, view, house, noise)
    for thing in sorted(plan.things, key=lambda x: -plan.order(x.s, max(x.t, 0.0))):
        furniture.draw(thing)
    return canvas, shadow
