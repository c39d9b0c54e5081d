"""Ground and sky of the synthetic street, worked out per pixel where the rays of the camera meet them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.street.scene import Floats, Plan, Side

SHADOW_PPM = 12
SHADOW_S, SHADOW_T = 40.0, 20.0
"""The shadow map's origin lies this far left of the axis and behind the camera."""
TILE = 512
"""Texels along a side of the noise, before it repeats itself."""
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PERSON, CYCLIST, VOID = range(12)


@dataclass(slots=True)
class Canvas:
    """The static picture while it is drawn: colours, class ids, and how far back each pixel is in drawing order."""

    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    order: Floats

    def put(self, mask: NDArray[np.uint8], x: int, y: int, label: int, order: float) -> None:
        h, w = mask.shape
        on = mask > 127
        self.labels[y : y + h, x : x + w][on] = label
        self.order[y : y + h, x : x + w][on] = order


def noise_tile(rng: np.random.Generator, octaves: tuple[int, ...] = (4, 8, 16, 32, 64, 128)) -> Floats:
    """Fractal noise, about -1..1, which repeats without a seam: f32 [TILE, TILE]."""
    tile = np.zeros((TILE, TILE), np.float32)
    for i, n in enumerate(octaves):
        cell = rng.standard_normal((n, n)).astype(np.float32)
        wrapped = np.pad(cell, 2, mode="wrap")
        scale = TILE // n
        big = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        tile += big[2 * scale : -2 * scale, 2 * scale : -2 * scale] * (0.62**i)
    out: Floats = np.clip(tile / (2.2 * tile.std()), -1.5, 1.5)
    return out


def wrap(x: Floats, period: float) -> Floats:
    """x modulo the period; five times as fast as np.mod."""
    out: Floats = x - np.floor(x * np.float32(1 / period)) * np.float32(period)
    return out


def sample(tile: Floats, u: Floats, v: Floats, frequency: float) -> Floats:
    """The tile at (u, v) metres, `frequency` texels a metre, repeated for ever."""
    n = tile.shape[0]
    x, y = wrap(u * np.float32(frequency), n), wrap(v * np.float32(frequency), n)
    out: Floats = cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return out


def band(x: Floats, centre: float, half: float, foot: Floats) -> Floats:
    """How much of a pixel of width `foot` a stripe covers: 0..1, smooth at its edges."""
    covered = np.clip((half + foot / 2 - np.abs(x - centre)) / np.maximum(foot, 1e-4), 0, 1)
    out: Floats = covered * np.minimum(1, 2 * half / foot)
    return out


def sky(canvas: Canvas, plan: Plan, noise: Floats) -> None:
    h, w = canvas.labels.shape
    camera, light = plan.camera, plan.light
    axes = camera.axes()
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    u, v = (x - (w - 1) / 2) / camera.f, (y - (h - 1) / 2) / camera.f
    up = np.maximum(axes[1, 2] * v + axes[2, 2], 0.0)
    up = up / np.sqrt(1 + u * u + v * v)
    k = 1 / (up + 0.12)
    cloud = sample(noise, u * k + plan.seed, (v * 0.3 + 1) * k, 60) * 0.6 + sample(noise, u * k, k * 1.7, 17)
    cover = np.clip((cloud + plan.light.clouds * 1.6 - 0.9) * 1.3, 0, 1)[..., None]
    zenith, horizon = np.array(light.zenith, np.float32), np.array(light.horizon, np.float32)
    tone = np.clip(up * 2.2, 0, 1)[..., None] ** 0.6
    clear = horizon + (zenith - horizon) * tone
    white = (
        horizon * (1.04 + 0.07 * cloud[..., None])
        if light.name != "dusk"
        else horizon * (0.75 + 0.08 * cloud[..., None])
    )
    canvas.rgb[:] = np.clip(clear + (white - clear) * cover, 0, 255).astype(np.uint8)
    canvas.labels[:] = SKY
    canvas.order[:] = 1e9


def haze(colour: Floats, depth: Floats | float, plan: Plan) -> Floats:
    """Distant things fade to the colour of the horizon."""
    amount = 1 - np.exp(-np.asarray(depth, np.float32) / plan.light.haze_m)
    if amount.ndim:
        amount = amount[..., None]
    out: Floats = colour + (np.array(plan.light.horizon, np.float32) - colour) * (amount * 0.85)
    return out


def ground(canvas: Canvas, plan: Plan, noise: Floats, grit: Floats, shadow: Floats) -> None:
    """Road with its markings, kerbs, pavement slabs and what grows behind them, lit and shadowed."""
    h, w = canvas.labels.shape
    camera, light = plan.camera, plan.light
    axes = camera.axes()
    v = (np.arange(h, dtype=np.float32) - (h - 1) / 2) / camera.f
    fall = -(axes[1, 2] * v + axes[2, 2])
    top = int(np.argmax(fall > camera.y / 600))
    if fall[-1] <= camera.y / 600:
        return
    k = (camera.y / fall[top:])[:, None]
    u = ((np.arange(w, dtype=np.float32) - (w - 1) / 2) / camera.f)[None]
    vv = v[top:, None]
    s = (camera.s + k * (axes[0, 0] * u + axes[1, 0] * vv + axes[2, 0])).astype(np.float32)
    t = (k * (axes[0, 1] * u + axes[1, 1] * vv + axes[2, 1])).astype(np.float32)
    step = np.abs(np.gradient(k[:, 0])) if len(k) > 1 else np.ones(1)
    fs = np.maximum(k / camera.f * abs(axes[0, 0]) + (step * abs(axes[2, 0]))[:, None], 1e-4).astype(np.float32)
    ft = np.maximum(k / camera.f * abs(axes[0, 1]) + (step * abs(axes[2, 1]))[:, None], 1e-4).astype(np.float32)
    labels = np.full(s.shape, ROAD, np.uint8)
    fs, ft = (np.broadcast_to(a, s.shape) for a in (fs, ft))
    colour = _surface(plan, Area(s, t, fs, ft, noise, grit), labels)
    vis = cv2.remap(
        shadow,
        (s + SHADOW_S) * SHADOW_PPM,
        (t + SHADOW_T) * SHADOW_PPM,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    lit = (
        np.array(light.ambient, np.float32) * (0.82 + 0.18 * vis[..., None])
        + np.array(light.direct, np.float32) * vis[..., None]
    )
    if light.lamps:
        for thing in plan.things:
            if thing.kind == "lamp" and thing.t < 90:
                d2 = (s - thing.s * 0.8) ** 2 + (t - thing.t) ** 2
                lit += (np.exp(-d2 / 30) * 0.5)[..., None] * np.array([1.0, 0.82, 0.55], np.float32)
    colour = haze(colour * lit, np.broadcast_to(k, s.shape), plan)
    canvas.rgb[top:] = np.clip(colour, 0, 255).astype(np.uint8)
    canvas.labels[top:] = labels


@dataclass(frozen=True, slots=True)
class Area:
    """Ground under some pixels: where it is in metres, and how much of s and t one pixel spans; all f32 [h, w]."""

    s: Floats
    t: Floats
    fs: Floats
    ft: Floats
    noise: Floats
    grit: Floats

    def crop(self, box: tuple[slice, slice]) -> Area:
        return Area(self.s[box], self.t[box], self.fs[box], self.ft[box], self.noise, self.grit)

    def grain(self, frequency: float, amplitude: float) -> Floats:
        """Texture that fades where a pixel spans many of its texels."""
        fine = frequency > 15
        fade = (self.fs + self.ft) * np.float32(frequency / (1.5 if fine else 6))
        return sample(self.grit if fine else self.noise, self.s, self.t, frequency) * (
            np.float32(amplitude) / (1 + fade * fade)
        )


def _surface(plan: Plan, area: Area, labels: NDArray[np.uint8]) -> Floats:
    rng = np.random.default_rng([plan.seed, 7])
    s, t, fs, ft, grain = area.s, area.t, area.fs, area.ft, area.grain
    tone = rng.uniform(78, 122)
    asphalt = np.array([tone * rng.uniform(0.98, 1.03), tone, tone * rng.uniform(0.98, 1.05)], np.float32)
    a = np.abs(s)
    wear = 0.05 * np.cos((a - plan.lane / 2) * (2 * math.pi / 1.5)) * (a < plan.lane)
    oil = -0.06 * np.exp(-(((a - plan.lane / 2) / 0.25) ** 2))
    texture = grain(95, 0.16) + grain(28, 0.1) + grain(9, 0.05) + grain(1.3, 0.07)
    shade = (1 + wear + oil + texture)[..., None]
    colour = asphalt * shade
    for _ in range(int(rng.integers(2, 7))):  # repairs of newer or older asphalt
        cs, ct, hs, ht = (
            rng.uniform(-plan.road, plan.road),
            rng.uniform(6, 60),
            rng.uniform(0.3, 1.2),
            rng.uniform(0.5, 4),
        )
        patch = (band(s, cs, hs, fs) * band(t, ct, ht, ft))[..., None]
        colour *= 1 + patch * rng.uniform(-0.2, 0.1)
    for _ in range(3):
        cs, ct = rng.uniform(-plan.lane, plan.lane), rng.uniform(7, 40)
        lid = np.clip((0.34 - np.hypot(s - cs, t - ct)) / np.maximum(fs, ft) + 0.5, 0, 1)[..., None]
        colour = colour * (1 - lid * 0.4) + lid * 8
    if rng.random() < 0.35:  # a coloured cycle lane
        lane = band(a, plan.lane + plan.bike / 2, plan.bike / 2, fs)[..., None] * 0.6
        dye = np.array([(150, 78, 62), (86, 122, 88)][int(rng.integers(2))], np.float32)
        colour += lane * (dye * shade - colour)
    worn = np.clip(0.9 + grain(25, 0.45) + grain(3, 0.3), 0, 1)
    paint = _markings(plan, rng, s, t, a, fs, ft) * worn * rng.uniform(0.6, 0.95)
    colour += paint[..., None] * (np.array([218, 216, 208], np.float32) * (1 + 0.3 * texture[..., None]) - colour)
    for side in plan.sides:
        _beside(plan, side, area, colour, labels)
    return colour


def _markings(plan: Plan, rng: np.random.Generator, s: Floats, t: Floats, a: Floats, fs: Floats, ft: Floats) -> Floats:
    dash, gap = float(rng.uniform(1.5, 4)), float(rng.uniform(2, 6))
    dashes = band(wrap(t, dash + gap), dash / 2, dash / 2, ft)
    paint = band(s, 0, 0.06, fs) * dashes
    kind = int(rng.integers(4))
    if kind == 1:
        paint = np.maximum(band(s, 0.11, 0.05, fs), band(s, -0.11, 0.05, fs))
    if plan.parking:
        paint = np.maximum(paint, band(a, plan.lane + plan.bike, 0.05, fs) * band(wrap(t, 1.2), 0.3, 0.3, ft))
    if rng.random() < 0.6:
        paint = np.maximum(paint, band(a, plan.lane, 0.05, fs) * (0.9 if rng.random() < 0.5 else dashes))
    if not plan.parking:
        paint = np.maximum(paint, band(a, plan.road - 0.35, 0.05, fs))
    if plan.zebra > 0:
        near = band(t, plan.zebra, 1.5, ft)
        clear = 1 - band(t, plan.zebra, 3.2, ft)
        stripes = band(wrap(s, 1.0), 0.5, 0.25, fs) * near
        give_way = band(t, plan.zebra - 2.2, 0.1, ft) + band(t, plan.zebra + 2.2, 0.1, ft)
        paint = np.maximum(np.maximum(paint * clear, stripes), give_way * 0.9) * (a < plan.road - 0.1)
    return paint * (a < plan.road)


def _beside(plan: Plan, side: Side, whole: Area, colour: Floats, labels: NDArray[np.uint8]) -> None:
    """Kerb, pavement and lawn of one side, painted into colour and labels in place."""
    rng = np.random.default_rng([plan.seed, 8])
    slab = float(rng.choice([0.45, 0.6, 0.9, 40.0]))
    base = np.array(
        [(158, 152, 142), (142, 140, 138), (168, 160, 148), (128, 126, 124)][int(rng.integers(4))], np.float32
    )
    on = whole.s * side.sign > side.pavement - 0.3
    rows, columns = np.flatnonzero(on.any(axis=1)), np.flatnonzero(on.any(axis=0))
    if not len(rows):
        return
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    area = whole.crop(box)
    t, fs, ft, grain, colour, labels = area.t, area.fs, area.ft, area.grain, colour[box], labels[box]
    here = area.s * np.float32(side.sign)
    joint = np.maximum(band(wrap(here, slab), 0.0, 0.012, fs), band(wrap(t, slab * 1.5), 0.0, 0.012, ft))
    ident = np.floor(here / slab) * np.float32(7.13) + np.floor(t / (slab * 1.5)) * np.float32(3.7)
    speckle = (wrap(np.sin(ident) * np.float32(437.585), 1.0) - 0.5) * 0.1 / (1 + (ft / slab) ** 2)
    paving = base * ((1 + grain(30, 0.08) + grain(1.1, 0.08) + speckle) * (1 - 0.35 * joint))[..., None]
    colour += np.clip((here - side.pavement) / fs + 0.5, 0, 1)[..., None] * (paving - colour)
    kerb = band(here, side.pavement + 0.07, 0.075, fs) * (1 - 0.35 * band(wrap(t, 0.9), 0, 0.01, ft))
    colour += kerb[..., None] * (np.array([176, 172, 164], np.float32) - colour)
    labels[here > side.pavement] = PAVEMENT
    if side.front > side.back:
        lawn = np.array([96, 112, 62], np.float32) * (1 + grain(26, 0.3) + grain(2.2, 0.2))[..., None]
        colour += np.clip((here - side.back) / fs + 0.5, 0, 1)[..., None] * (lawn - colour)
        labels[here > side.back] = TREE
    # Dirt gathers in the gutter and along walls.
    foul = 0.45 * band(here, side.pavement - 0.06, 0.06, fs) + 0.25 * np.clip(1 - np.abs(here - side.back) / 0.5, 0, 1)
    colour *= (1 - foul)[..., None]
