"""The stage of the synthetic street: the still picture, and what it takes to put the moving players into it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.cars import PosedCar
from streamseg.street.cyclist import cyclist
from streamseg.street.ground import CAR, CYCLIST, PAVEMENT, PERSON, ROAD, SHADOW_PPM, SHADOW_S, SHADOW_T, TREE
from streamseg.street.motion import Actor, actors, flows
from streamseg.street.people import Body, shapes, walker
from streamseg.street.plan import plan
from streamseg.street.static import still
from streamseg.street.view import Shape, View, project

U8 = NDArray[np.uint8]
LABELS = {"car": CAR, "bike": CYCLIST, "person": PERSON}
FIRST = 9
"""Seed 0, which everybody sees first, is a street with all classes in view."""
BLACK = 8
"""The still picture is this much darker: the noise, with a mean of 10, lifts it as a sensor's black level does."""


@dataclass(frozen=True, slots=True)
class Player:
    """An actor in the picture: its polygons, the box they lie in (x0, y0, x1, y1) and how far back it stands."""

    shape: Shape
    box: tuple[int, int, int, int]
    order: float
    label: int
    shadow: NDArray[np.float32] | None
    """Outline of its shadow on the ground, in pixels [n, 2]."""
    sunlit: float
    soft: int


class Stage:
    """Everything about (seed, width, height) that does not move. Made once; only read afterwards."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        seed += FIRST
        self.plan = plan(seed, width, height)
        # Small pictures are drawn larger and shrunk: smoother edges where a metre is only a few pixels.
        scale = max(1, min(3, round(1280 / width)))
        canvas, shadow = still(self.plan, scale)
        rgb, labels, order = canvas.rgb, canvas.labels, canvas.order
        if scale > 1:
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
            middle = (slice(scale // 2, None, scale),) * 2
            labels, order = np.ascontiguousarray(labels[middle]), np.ascontiguousarray(order[middle])
        else:
            rgb = cv2.GaussianBlur(rgb, (3, 3), 0.55)
        gain = _exposure(rgb, self.plan.seed, self.plan.light.lamps)
        self.rgb: U8 = cv2.convertScaleAbs(cv2.subtract(cv2.multiply(rgb, (gain,) * 4), (BLACK,) * 4))
        self.plan = replace(self.plan, light=self.plan.light.brighter(gain))
        self.labels, self.order = labels, order
        self.view = View.of(self.plan.camera)
        self.flows = flows(self.plan)
        self.ground: U8 = (np.isin(labels, (ROAD, PAVEMENT, TREE)) & (order > 1e8)).astype(np.uint8) * 255
        self.sun = np.clip(cv2.blur(shadow, (9, 9)), 0, 1)
        rng = np.random.default_rng([seed, 5])
        size, sigma = (height + 64, width + 64), self.plan.light.noise
        tile = (
            10
            + rng.standard_normal((*size, 1), np.float32) * sigma
            + rng.standard_normal((*size, 3), np.float32) * (0.35 * sigma)
        )
        self.noise: U8 = np.clip(np.rint(tile), 0, 40).astype(np.uint8)

    def players(self, second: float) -> list[Player]:
        """Everybody who is in the picture at `second`, the farthest first."""
        cast = self._visible(actors(self.flows, second))
        sunlit = [self._sunlit(a.s, a.t) for a in cast]
        walkers = [(a, v) for a, v in zip(cast, sunlit, strict=True) if not isinstance(a.look, PosedCar)]
        figures = iter(
            shapes(self.view, self.plan.light, [self._figure(a) for a, _ in walkers], [v for _, v in walkers])
        )
        out = []
        for actor, sun in zip(cast, sunlit, strict=True):
            shape = (
                actor.look.shape(self.view, actor.s, actor.t, sun)
                if isinstance(actor.look, PosedCar)
                else next(figures)
            )
            if not shape:
                continue
            x, y, w, h = cv2.boundingRect(np.concatenate([p for p, _ in shape]))
            x0, y0 = max((x >> 4) - 2, 0), max((y >> 4) - 2, 0)
            x1, y1 = min(((x + w) >> 4) + 3, self.plan.camera.width), min(((y + h) >> 4) + 3, self.plan.camera.height)
            if x1 > x0 and y1 > y0:
                shadow, soft = self._shadow(actor)
                order = self.plan.order(actor.s, actor.t)
                out.append(Player(shape, (x0, y0, x1, y1), order, LABELS[actor.kind], shadow, sun, soft))
        return sorted(out, key=lambda p: -p.order)

    def _visible(self, cast: list[Actor]) -> list[Actor]:
        if not cast:
            return []
        middle = np.array([(a.s, a.t, 0.8) for a in cast], np.float32)
        pixels, depth = project(self.view.matrix, middle)
        reach = np.array([6.0 if a.kind == "car" else 1.2 for a in cast]) * self.view.f / np.maximum(depth, 1.0)
        inside = (pixels[:, 0] > -reach) & (pixels[:, 0] < self.plan.camera.width + reach)
        keep = (depth > -6) & (inside | (depth < 6))
        return [a for a, on in zip(cast, keep.tolist(), strict=True) if on]

    def _figure(self, actor: Actor) -> Body:
        assert not isinstance(actor.look, PosedCar)
        if actor.kind == "person":
            return walker(actor.look, actor.s, actor.t, actor.heading, actor.walked, self.view)
        return cyclist(actor.look, actor.s, actor.t, actor.heading, actor.walked, self.view, self.plan.light.lamps)

    def _sunlit(self, s: float, t: float) -> float:
        h, w = self.sun.shape
        y, x = int((t + SHADOW_T) * SHADOW_PPM), int((s + SHADOW_S) * SHADOW_PPM)
        return float(self.sun[min(max(y, 0), h - 1), min(max(x, 0), w - 1)])

    def _shadow(self, actor: Actor) -> tuple[NDArray[np.float32] | None, int]:
        """Outline on the ground and its softness in pixels; None where it would be a few pixels small."""
        light = self.plan.light
        low = 0.12 if light.direct[0] < 0.1 else 1.0
        throw = (-light.sun[0] / max(light.sun[2], 0.2) * low, -light.sun[1] / max(light.sun[2], 0.2) * low)
        body = actor.look.shadow if isinstance(actor.look, PosedCar) else _FEET[actor.kind]
        flat = body.copy()
        flat[:, 0] += body[:, 2] * throw[0] + actor.s
        flat[:, 1] += body[:, 2] * throw[1] + actor.t
        flat[:, 2] = 0
        pixels, depth = project(self.view.matrix, flat)
        if depth.min() < 1.0 or self.view.f / depth[0] < 14:
            return None, 0
        return cv2.convexHull(pixels.astype(np.float32))[:, 0], max(1, int(0.16 * self.view.f / float(depth[0])))

    def shade(self, out: U8, player: Player) -> None:
        """Darkens the ground beside and under the player."""
        hull, soft = player.shadow, player.soft
        if hull is None:
            return
        x, y, w, h = cv2.boundingRect(hull)
        x0, y0 = max(x - soft, 0), max(y - soft, 0)
        x1, y1 = min(x + w + soft, self.plan.camera.width), min(y + h + soft, self.plan.camera.height)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        strength = int(255 * (0.54 if self.plan.light.direct[0] > 0.1 else 0.38) * (0.45 + 0.55 * player.sunlit))
        cv2.fillConvexPoly(mask, np.rint(hull - (x0, y0)).astype(np.int32), (strength,))
        mask = cv2.min(cv2.blur(mask, (2 * soft + 1, 2 * soft + 1)), self.ground[y0:y1, x0:x1])
        roi = out[y0:y1, x0:x1]
        cv2.multiply(roi, cv2.cvtColor(cv2.bitwise_not(mask), cv2.COLOR_GRAY2RGB), dst=roi, scale=1 / 255)

    def restore(self, out: U8, source: U8, player: Player) -> None:
        """Puts back what stands nearer than the player where it was drawn."""
        x0, y0, x1, y1 = player.box
        near = (self.order[y0:y1, x0:x1] < player.order).view(np.uint8)  # cv2.compare takes 1x1 for another scalar
        if cv2.hasNonZero(near):
            cv2.copyTo(source[y0:y1, x0:x1], near, out[y0:y1, x0:x1])

    def develop(self, out: U8, index: int) -> U8:
        """Sensor noise and a small flicker of the exposure, in one pass; a hash of the index picks both."""
        mix = (index * 2654435761 + self.plan.seed * 40503) & 0xFFFFFFFF
        mix = ((mix ^ mix >> 15) * 2246822519) & 0xFFFFFFFF
        y, x = (mix >> 7) % 64, (mix >> 17) % 64
        h, w = self.labels.shape
        gain = 1 + 0.012 * (((mix >> 3) % 255) / 127 - 1)
        done: U8 = cv2.addWeighted(out, gain, self.noise[y : y + h, x : x + w], 1.0, 0, dst=out)
        return done


def _exposure(rgb: U8, seed: int, night: bool) -> float:
    """What the camera's automatic exposure would do: the mean comes near a level of its own."""
    level = np.random.default_rng([seed, 6]).uniform(*((66, 84) if night else (92, 124)))
    return float(np.clip(level / max(float(rgb.mean()), 1.0), 0.75, 1.7))


def _upright(width: float, length: float, tall: float) -> NDArray[np.float32]:
    return np.array(
        [(a * width, b * length, y) for a in (-1, 1) for b in (-1, 1) for y in (0, tall * 0.6, tall)], np.float32
    )


_FEET = {"person": _upright(0.2, 0.2, 1.7), "bike": _upright(0.2, 0.8, 1.6)}
