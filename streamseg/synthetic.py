"""`synthetic://street`: a street as a fixed surveillance camera sees it, drawn by our own code, with exact labels.

Pure functions of (seed, size, second): any frame can be had at any time, in any thread that owns its `Street`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.errors import ConfigError
from streamseg.street_actors import PosedCar, Shape, View, cover, paint, project
from streamseg.street_ground import CAR, CYCLIST, PAVEMENT, PERSON, ROAD, SHADOW_PPM, SHADOW_S, SHADOW_T, TREE
from streamseg.street_motion import Actor, actors, flows
from streamseg.street_people import Person, cyclist, walker
from streamseg.street_scene import F32, plan
from streamseg.street_static import order_of, still

U8 = NDArray[np.uint8]
Pace = Literal["realtime", "max"]
LABELS = {"car": CAR, "bike": CYCLIST, "person": PERSON}
KEYS = "seed, size, fps, pace, frames"


@dataclass(frozen=True, slots=True)
class StreetSpec:
    """What a `synthetic://street` URL asks for; `frames` None: for ever."""

    seed: int = 0
    width: int = 1280
    height: int = 720
    fps: float = 25.0
    pace: Pace = "realtime"
    frames: int | None = None

    @classmethod
    def from_url(cls, url: str) -> StreetSpec:
        """Parses `synthetic://street?seed=3&size=640x360&fps=10&pace=max&frames=100`; raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme != "synthetic":
            raise ConfigError(f"{url!r}: the scheme is {parts.scheme!r}; it must be synthetic://street")
        if parts.netloc != "street" or parts.path not in ("", "/"):
            raise ConfigError(
                f"{url!r}: there is no scene {parts.netloc + parts.path!r}; the only one is synthetic://street"
            )
        values: dict[str, object] = {}
        for key, text in parse_qsl(parts.query, keep_blank_values=True):
            if key in values:
                raise ConfigError(f"{url!r}: {key} is given twice")
            values |= _setting(url, key, text)
        return cls(**values)  # type: ignore[arg-type]


def _setting(url: str, key: str, text: str) -> dict[str, object]:
    try:
        if key == "size":
            width, height = (int(v) for v in text.split("x"))
            if any(v % 2 or not 64 <= v <= 7680 for v in (width, height)):
                raise ValueError
            return {"width": width, "height": height}
        if key in ("seed", "frames"):
            number = int(text)
            if number < (key == "frames"):
                raise ValueError
            return {key: number}
        if key == "fps":
            if not 0 < float(text) <= 1000:
                raise ValueError
            return {key: float(text)}
        if key == "pace":
            if text not in ("realtime", "max"):
                raise ValueError
            return {key: text}
    except ValueError:
        allowed = {
            "size": "WIDTHxHEIGHT, both even and from 64 to 7680, as in 1280x720",
            "seed": "a whole number from 0",
            "frames": "a whole number from 1",
            "fps": "a number above 0, at most 1000",
            "pace": "realtime or max",
        }[key]
        raise ConfigError(f"{url!r}: {key}={text!r} is not possible; it must be {allowed}") from None
    raise ConfigError(f"{url!r}: unknown key {key!r}; known are {KEYS}")


class Street:
    """Draws frame `index` of the street of `seed`. The first frame also draws all that stands still (a second or so)."""

    def __init__(self, seed: int = 0, width: int = 1280, height: int = 720, fps: float = 25.0) -> None:
        self.seed, self.width, self.height, self.fps = seed, width, height, fps

    def __repr__(self) -> str:
        return f"Street(seed={self.seed}, {self.width}x{self.height}, fps={self.fps:g})"

    def frame(self, index: int) -> tuple[U8, U8]:
        """RGB u8 [H, W, 3] and class ids u8 [H, W] (CamVid's: 0 sky ... 10 bicyclist)."""
        cast_ = self._cast(index)
        return self._draw(index, cast_), self._label(cast_)

    def picture(self, index: int) -> U8:
        """RGB u8 [H, W, 3] alone: cheaper where nobody needs the labels."""
        return self._draw(index, self._cast(index))

    def labels(self, index: int) -> U8:
        """Class ids u8 [H, W] alone."""
        return self._label(self._cast(index))

    @cached_property
    def _set(self) -> _Set:
        return _Set.build(self.seed, self.width, self.height)

    def _cast(self, index: int) -> list[tuple[float, Actor, Shape]]:
        """Who is in the picture, the farthest first, as polygons."""
        scene = self._set
        out = []
        for actor in actors(scene.flows, index / self.fps):
            shape = scene.shape(actor)
            if shape:
                out.append((order_of(scene.plan, actor.s, actor.t), actor, shape))
        return sorted(out, key=lambda x: -x[0])

    def _draw(self, index: int, cast_: list[tuple[float, Actor, Shape]]) -> U8:
        scene = self._set
        out = scene.rgb.copy()
        for _, actor, _ in cast_:
            scene.cast_shadow(out, actor)
        for order, _, shape in cast_:
            paint(out, shape)
            scene.restore(out, scene.rgb, shape, order)
        return scene.develop(out, index)

    def _label(self, cast_: list[tuple[float, Actor, Shape]]) -> U8:
        scene = self._set
        out = scene.labels.copy()
        for order, actor, shape in cast_:
            cover(out, shape, LABELS[actor.kind])
            scene.restore(out, scene.labels, shape, order)
        return out


class _Set:
    """The stage: still picture, its labels and drawing order, and what moving things need to be drawn on it."""

    @classmethod
    def build(cls, seed: int, width: int, height: int) -> _Set:
        self = cls()
        self.plan = plan(seed, width, height)
        # Small pictures are drawn larger and shrunk: smoother edges where a metre is only a few pixels.
        scale = max(1, min(3, round(1280 / width)))
        canvas, self.shadow = still(self.plan, scale)
        if scale > 1:
            canvas.rgb = cv2.resize(canvas.rgb, (width, height), interpolation=cv2.INTER_AREA)
            half = scale // 2
            canvas.labels, canvas.order = (
                np.ascontiguousarray(a[half::scale, half::scale]) for a in (canvas.labels, canvas.order)
            )
        else:
            canvas.rgb = cv2.GaussianBlur(canvas.rgb, (3, 3), 0.6)
        self.rgb, self.labels, self.order = canvas.rgb, canvas.labels, canvas.order
        self.view = View.of(self.plan.camera)
        self.flows = flows(self.plan)
        self.ground = np.isin(self.labels, (ROAD, PAVEMENT, TREE)).astype(np.uint8) * 255
        self.ground[self.order < 1e8] = 0
        rng = np.random.default_rng([seed, 5])
        luma = rng.normal(0, self.plan.light.noise, (height + 64, width + 64, 1))
        tile = 10 + luma + rng.normal(0, self.plan.light.noise * 0.35, (height + 64, width + 64, 3))
        self.noise = np.clip(np.rint(tile), 0, 40).astype(np.uint8)
        # The tile's mean of 10 lifts the picture; drawing starts that much darker, as a sensor's black level does.
        self.rgb = np.clip(self.rgb.astype(np.int16) - 8, 0, 245).astype(np.uint8)
        return self

    def shape(self, actor: Actor) -> Shape:
        at = np.array([(actor.s, actor.t, 0.8)], np.float32)
        pixels, depth = project(self.view.matrix, at)
        margin = 8 * self.view.f / max(float(depth[0]), 1.0)
        if depth[0] < -6 or not -margin < pixels[0, 0] < self.plan.camera.width + margin and depth[0] > 6:
            return []
        sunlit = self._sunlit(actor.s, actor.t)
        if isinstance(actor.look, PosedCar):
            return actor.look.shape(self.view, actor.s, actor.t, sunlit)
        figure = (
            walker(actor.look, actor.s, actor.t, actor.heading, actor.walked, self.view.eye)
            if actor.kind == "person"
            else cyclist(
                actor.look, actor.s, actor.t, actor.heading, actor.walked, self.view.eye, self.plan.light.lamps
            )
        )
        return figure.shape(self.view, self.plan.light, sunlit)

    def _sunlit(self, s: float, t: float) -> float:
        y, x = int((t + SHADOW_T) * SHADOW_PPM), int((s + SHADOW_S) * SHADOW_PPM)
        h, w = self.shadow.shape
        y, x = min(max(y, 4), h - 5), min(max(x, 4), w - 5)
        return float(np.clip(self.shadow[y - 4 : y + 5, x - 4 : x + 5].mean(), 0, 1))

    def cast_shadow(self, out: U8, actor: Actor) -> None:
        """Darkens the ground beside and under the actor."""
        sun = self.plan.light.sun
        hard = self.plan.light.direct[0] > 0.1
        throw = np.array(sun[:2]) / -max(sun[2], 0.2) * (1.0 if hard else 0.12)
        if isinstance(actor.look, PosedCar):
            body = actor.look.shadow
        else:
            w, h, tall = (
                (0.2, 0.2, 1.7) if isinstance(actor.look, Person) and actor.kind == "person" else (0.2, 0.8, 1.6)
            )
            body = np.array(
                [(a * w, b * h, y) for a in (-1, 1) for b in (-1, 1) for y in (0, tall * 0.6, tall)], np.float32
            )
        flat = np.zeros((len(body), 3), np.float32)
        flat[:, :2] = body[:, :2] + body[:, 2:] * throw + (actor.s, actor.t)
        pixels, depth = project(self.view.matrix, flat)
        if depth.min() < 1.0:
            return
        hull = cv2.convexHull(pixels.astype(np.float32))[:, 0]
        soft = max(1, int(0.16 * self.view.f / float(depth.mean())))
        h, w = self.labels.shape
        x0, y0 = np.clip(hull.min(axis=0) - soft, 0, (w, h)).astype(int)
        x1, y1 = np.clip(hull.max(axis=0) + soft + 2, 0, (w, h)).astype(int)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        strength = int(255 * (0.52 if hard else 0.36) * (0.45 + 0.55 * self._sunlit(actor.s, actor.t)))
        cv2.fillConvexPoly(mask, np.rint(hull - (x0, y0)).astype(np.int32), (strength,))
        mask = cv2.min(cv2.blur(mask, (2 * soft + 1, 2 * soft + 1)), self.ground[y0:y1, x0:x1])
        keep = cv2.merge([cv2.bitwise_not(mask)] * 3)
        roi = out[y0:y1, x0:x1]
        cv2.multiply(roi, keep, dst=roi, scale=1 / 255)

    def restore(self, out: U8, still_: U8, shape: Shape, order: float) -> None:
        """Puts back what stands nearer than `order` where the shape was drawn."""
        points = np.concatenate([p for p, _ in shape]) >> 4
        h, w = self.labels.shape
        x0, y0 = np.clip(points.min(axis=0) - 2, 0, (w, h))
        x1, y1 = np.clip(points.max(axis=0) + 3, 0, (w, h))
        if x1 <= x0 or y1 <= y0:
            return
        near = cv2.compare(self.order[y0:y1, x0:x1], order, cv2.CMP_LT)
        if cv2.hasNonZero(near):
            cv2.copyTo(still_[y0:y1, x0:x1], near, out[y0:y1, x0:x1])

    def develop(self, out: U8, index: int) -> U8:
        """Sensor noise and a small flicker of the exposure, in one pass."""
        mix = (index * 2654435761 + self.plan.seed * 40503) & 0xFFFFFFFF
        mix ^= mix >> 15
        mix = (mix * 2246822519) & 0xFFFFFFFF
        y, x = (mix >> 7) % 64, (mix >> 17) % 64
        h, w = self.labels.shape
        gain = 1 + 0.012 * (((mix >> 3) % 255) / 127 - 1)
        return cast(U8, cv2.addWeighted(out, gain, self.noise[y : y + h, x : x + w], 1.0, 0, dst=out))
