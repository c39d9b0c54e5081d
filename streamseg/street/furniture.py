"""Trees, lamps, signs, fences and parked cars of the synthetic street: drawn once, each with its place in the order."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.cars import CAR_PAINTS, PosedCar, car
from streamseg.street.crown import crown
from streamseg.street.ground import CAR, FENCE, POLE, SIGN, TREE, Canvas, haze
from streamseg.street.light import Rgb
from streamseg.street.scene import Floats, Plan, Thing
from streamseg.street.view import Shape, View, clip_near, cover, fixed, paint, project


class Furniture:
    """Draws standing things onto the canvas, one after the other from the back."""

    def __init__(self, canvas: Canvas, plan: Plan, view: View) -> None:
        self.canvas, self.plan, self.view = canvas, plan, view
        light = plan.light
        self.tone = np.array(light.ambient, np.float32) * 0.85 + np.array(light.direct, np.float32) * 0.6
        rng = np.random.default_rng([plan.seed, 11])
        right = 1.0 if light.sun[0] * math.cos(plan.camera.yaw) > light.sun[1] * math.sin(plan.camera.yaw) else -1.0
        self.crowns = [crown(rng, right * (light.direct[0] > 0.1)) for _ in range(4)]
        leaves = [(84, 108, 48), (98, 116, 58), (70, 98, 52), (116, 122, 54), (150, 112, 48)]
        self.leaf = np.array(leaves[int(rng.choice(5, p=[0.3, 0.25, 0.2, 0.17, 0.08]))], np.float32)

    def draw(self, thing: Thing) -> None:
        p = np.array([[thing.s, thing.t, 1.0]], np.float32)
        depth = float(project(self.view.matrix, p)[1][0])
        length = thing.size if thing.kind in ("fence", "wall", "hedge") else 3.0
        if depth < -length:
            return
        order = self.plan.order(thing.s, max(thing.t, 0.0))
        getattr(self, f"_{thing.kind}")(thing, np.random.default_rng(thing.seed), order, depth)

    def lay(self, shape: Shape, label: int, order: float, depth: float) -> None:
        if not shape:
            return
        far: Shape = []
        for points, colour in shape:
            faded = haze(np.minimum(np.array(colour, np.float32), 255), depth, self.plan)
            far.append((points, (float(faded[0]), float(faded[1]), float(faded[2]))))
        paint(self.canvas.rgb, far)
        mask = np.zeros(self.canvas.labels.shape, np.uint8)
        cover(mask, far, 255)
        box = np.concatenate([p for p, _ in far]) >> 4
        h, w = self.canvas.labels.shape
        x0, y0 = np.clip(box.min(axis=0), 0, (w, h))
        x1, y1 = np.clip(box.max(axis=0) + 2, 0, (w, h))
        self.canvas.put(mask[y0:y1, x0:x1], int(x0), int(y0), label, order)

    def stamp(
        self, sprite: Floats, centre: Floats, size: tuple[float, float], tint: Floats, order: float, depth: float
    ) -> None:
        """A crown of `size` pixels; its leaves have the colour `tint`."""
        canvas, w, h = self.canvas, max(int(size[0]), 3), max(int(size[1]), 3)
        if w > 4000 or h > 4000:
            return
        scaled = cv2.resize(sprite, (w, h), interpolation=cv2.INTER_AREA if w < sprite.shape[1] else cv2.INTER_LINEAR)
        x, y = round(float(centre[0]) - w / 2), round(float(centre[1]) - h / 2)
        height, width = canvas.labels.shape
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x1 <= x0 or y1 <= y0:
            return
        scaled = scaled[y0 - y : y1 - y, x0 - x : x1 - x]
        alpha = scaled[..., 1:2]
        colour = haze(np.clip(scaled[..., :1] * tint, 0, 255), depth, self.plan)
        roi = canvas.rgb[y0:y1, x0:x1]
        roi[:] = (roi + (colour - roi) * alpha).astype(np.uint8)
        canvas.put((alpha[..., 0] * 255).astype(np.uint8), x0, y0, TREE, order)

    def post(self, s: float, t: float, y0: float, y1: float, r0: float, r1: float, colour: Rgb) -> Shape:
        """An upright pole with a lighter side; `r0` and `r1` are its radii at the heights `y0` and `y1`."""
        pixels, depth = project(self.view.matrix, np.array([(s, t, y0), (s, t, y1)], np.float32))
        if depth.min() < 0.5:
            return []
        (a, b), f = pixels, self.view.f
        wa, wb = max(r0 * f / depth[0], 0.6), max(r1 * f / depth[1], 0.5)
        quad = np.array([(a[0] - wa, a[1]), (a[0] + wa, a[1]), (b[0] + wb, b[1]), (b[0] - wb, b[1])])
        light = np.array([(a[0] - wa * 0.6, a[1]), (a[0], a[1]), (b[0], b[1]), (b[0] - wb * 0.6, b[1])])
        c = np.array(colour) * self.tone
        return [(fixed(quad), tuple((c * 0.8).tolist())), (fixed(light), tuple((c * 1.15).tolist()))]

    def board(
        self, s: float, t: float, y: float, points: NDArray[np.floating], colour: Rgb, glow: float = 1.0
    ) -> Shape:
        """A flat plate that faces along the street; points are metres right and up of (s, t, y)."""
        world = np.stack([s + points[:, 0], np.full(len(points), t), y + points[:, 1]], 1).astype(np.float32)
        return self._flat(world, colour, glow)

    def strip(self, thing: Thing, low: float, high: float, from_t: float, to_t: float, colour: Rgb) -> Shape:
        """A flat plate that stands beside the street."""
        s = thing.s
        quad = np.array([(s, from_t, low), (s, to_t, low), (s, to_t, high), (s, from_t, high)], np.float32)
        return self._flat(quad, colour, 1.0)

    def _flat(self, world: Floats, colour: Rgb, glow: float) -> Shape:
        outline = clip_near(self.view.matrix, world)
        return [(fixed(outline), tuple((np.array(colour) * self.tone * glow).tolist()))] if len(outline) > 2 else []

    def _parked(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        kind = str(rng.choice(["hatch", "saloon", "estate", "suv", "van"], p=[0.34, 0.22, 0.18, 0.18, 0.08]))
        colour = CAR_PAINTS[int(rng.integers(len(CAR_PAINTS)))]
        ahead = 1 if (thing.s < 0) == self.plan.drive_left else -1
        posed = PosedCar.of(car(kind, colour, False), ahead if rng.random() < 0.85 else -ahead, self.plan.light)
        self.lay(posed.shape(self.view, thing.s, thing.t, 0.8), CAR, order, max(depth, 0.5))

    def _tree(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        if depth < 3:
            return
        high = thing.size
        bark: Rgb = (88, 74, 60)
        stem = self.post(thing.s, thing.t, 0, high * 0.6, 0.035 * high * 0.6, 0.02 * high * 0.5, bark)
        self.lay(stem, TREE, order, depth)
        tint = self.leaf * rng.uniform(0.9, 1.12, 3) * rng.uniform(0.9, 1.3) * self.tone * 1.15
        for i in range(1 + (high > 6)):
            middle = np.array([[thing.s + rng.uniform(-0.3, 0.3) * i, thing.t, high * (0.66 + 0.05 * i)]], np.float32)
            pixels, _ = project(self.view.matrix, middle)
            wide = high * rng.uniform(0.6, 0.76) * self.view.f / depth
            sprite = self.crowns[int(rng.integers(3))]
            if rng.random() >= 0.5 and self.plan.light.direct[0] <= 0.1:
                sprite = np.ascontiguousarray(sprite[:, ::-1])
            self.stamp(sprite, pixels[0], (wide, wide * rng.uniform(0.9, 1.15)), tint, order, depth)

    def _lamp(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        side = -math.copysign(1, thing.s)
        colour: Rgb = ((96, 100, 102), (60, 66, 62), (140, 142, 142))[self.plan.seed % 3]
        shape = self.post(thing.s, thing.t, 0, thing.size, 0.085, 0.05, colour)
        shape += self.post(thing.s, thing.t, 0, 1.2, 0.12, 0.12, colour)
        arm = np.array([(0, 0.0), (side * 1.3, 0.18), (side * 1.3, 0.1), (0, -0.1)])
        shape += self.board(thing.s, thing.t, thing.size, arm, colour)
        head = np.array([(side * 1.0, 0.2), (side * 1.75, 0.24), (side * 1.75, 0.12), (side * 1.0, 0.08)])
        light: Rgb = (255, 236, 180) if self.plan.light.lamps else (150, 150, 150)
        shape += self.board(thing.s, thing.t, thing.size, head, light, 3.0 if self.plan.light.lamps else 1.0)
        if depth > 1:
            self.lay(shape, POLE, order, depth)

    def _sign(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        if depth < 3:
            return
        self.lay(self.post(thing.s, thing.t, 0, thing.size + 0.5, 0.04, 0.04, (130, 132, 132)), POLE, order, depth)
        disc = _disc(20)
        up = np.array([(0, 1), (0.92, -0.6), (-0.92, -0.6)])
        square = np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])
        r = rng.uniform(0.32, 0.42)
        red: Rgb
        red, white, blue, black = (196, 28, 34), (240, 240, 236), (22, 78, 160), (30, 30, 30)
        designs: list[list[tuple[NDArray[np.floating], Rgb]]] = [
            [(disc, red), (disc * 0.76, white), (square * (0.3, 0.34), black)],
            [(up, red), (up * 0.62 + (0, -0.03), white), (square * (0.08, 0.25) - (0, 0.1), black)],
            [(disc, blue), (square * (0.16, 0.62), white)],
            [(square, blue), (square * 0.5, white)],
            [(square * (1.5, 0.55), (30, 96, 60)), (square * (1.2, 0.14), white)],
            [(disc, red), (square * (0.8, 0.2), white)],
        ]
        shape: Shape = []
        for points, colour in designs[int(rng.integers(6))]:
            shape += self.board(thing.s, thing.t - 0.05, thing.size + 0.35, points * r, colour)
        self.lay(shape, SIGN, order, depth)

    def _beacon(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        if depth < 2:
            return
        for i in range(6):
            colour: Rgb = (30, 30, 30) if i % 2 else (230, 230, 228)
            self.lay(self.post(thing.s, thing.t, i * 0.5, i * 0.5 + 0.5, 0.06, 0.06, colour), POLE, order, depth)
        lamp = self.board(thing.s, thing.t, 3.15, _disc(16) * 0.2, (240, 150, 30), 1.2)
        self.lay(lamp, SIGN, order, depth)

    def _bollard(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        if depth > 1:
            self.lay(self.post(thing.s, thing.t, 0, 0.95, 0.09, 0.075, (52, 54, 56)), POLE, order, depth)
            self.lay(self.post(thing.s, thing.t, 0.72, 0.82, 0.085, 0.085, (210, 210, 206)), POLE, order, depth)

    def _fence(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        iron = (self.plan.seed + int(thing.s > 0)) % 2
        t0, t1 = thing.t, thing.t + thing.size
        shape: Shape = []
        high = 1.05 if iron else 1.5
        if iron:
            shape += self.strip(thing, 0.0, 0.35, t0, t1, (150, 140, 130))
            shape += self.strip(thing, 0.35, 0.95, t0, t1, (66, 74, 58))
            for t in np.arange(t0, t1, 0.16 if depth < 30 else 0.6):
                shape += self.strip(thing, 0.3, high, float(t), float(t) + 0.035, (28, 30, 32))
            for low, top in ((0.92, 0.97), (0.42, 0.46)):
                shape += self.strip(thing, low, top, t0, t1, (28, 30, 32))
        else:
            wood = np.array([(128, 98, 70), (110, 92, 76), (150, 124, 92)][self.plan.seed % 3], np.float32)
            shape += self.strip(thing, 0.0, high, t0, t1, tuple((wood * 0.45).tolist()))
            for t in np.arange(t0, t1, 0.15 if depth < 40 else 0.6):
                tone = tuple((wood * rng.uniform(0.85, 1.1)).tolist())
                shape += self.strip(thing, 0.05, high, float(t), float(t) + (0.13 if depth < 40 else 0.55), tone)
        self.lay(shape, FENCE, order, max(depth, 1.0))

    def _wall(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        shape = self.strip(thing, 0, 0.8, thing.t, thing.t + thing.size, (134, 92, 74))
        if depth < 45:
            for i in range(10):
                shape += self.strip(thing, i * 0.08, i * 0.08 + 0.012, thing.t, thing.t + thing.size, (166, 146, 130))
        shape += self.strip(thing, 0.78, 0.9, thing.t, thing.t + thing.size, (170, 164, 154))
        self.lay(shape, FENCE, order, max(depth, 1.0))

    def _hedge(self, thing: Thing, rng: np.random.Generator, order: float, depth: float) -> None:
        dark: Rgb = tuple((self.leaf * 0.5).tolist())
        self.lay(self.strip(thing, 0, 1.1, thing.t, thing.t + thing.size, dark), TREE, order, max(depth, 1.0))
        for t in np.arange(thing.t + thing.size, thing.t, -0.55 if depth < 35 else -1.4):
            for y in (0.95, 0.45):
                p = np.array([[thing.s + rng.normal(0, 0.1), t, y]], np.float32)
                pixels, d = project(self.view.matrix, p)
                if d[0] > 1.5:
                    wide = 1.5 * self.view.f / float(d[0]) * (1.0 if depth < 35 else 1.7)
                    tint = self.leaf * self.tone * (0.8 + 0.3 * (y > 0.5))
                    sprite = self.crowns[int(rng.integers(3))]
                    self.stamp(sprite, pixels[0], (wide, wide * 0.75), tint, order, float(d[0]))


def _disc(corners: int) -> Floats:
    a = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([np.cos(a), np.sin(a)], 1)
