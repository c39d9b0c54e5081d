"""People of the synthetic street: jointed figures, posed in metres, as polygons in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from streamseg.street.light import Light, Rgb
from streamseg.street.scene import NEAR, Floats, Point
from streamseg.street.view import Shape, View, fixed, project

SKIN: tuple[Rgb, ...] = ((224, 178, 150), (206, 156, 124), (150, 104, 78), (98, 68, 52))
HAIR: tuple[Rgb, ...] = ((40, 30, 26), (70, 48, 34), (150, 116, 70), (120, 118, 116), (24, 22, 24))
TOPS: tuple[Rgb, ...] = (
    (38, 40, 46), (60, 70, 92), (150, 40, 42), (196, 190, 180), (92, 100, 70), (120, 120, 124),
    (40, 80, 120), (186, 150, 60), (220, 220, 222), (86, 52, 68), (70, 56, 46), (210, 110, 50),
)  # fmt: skip
TROUSERS: tuple[Rgb, ...] = ((34, 36, 42), (52, 62, 86), (44, 50, 70), (112, 100, 82), (70, 70, 72), (150, 140, 120))
_ROUND = np.linspace(-math.pi / 2, math.pi / 2, 5, dtype=np.float32)
CIRCLE = np.linspace(0, 2 * math.pi, 10, endpoint=False, dtype=np.float32)
_RING = np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Person:
    """Looks and build. `coat`: metres below the hip that the top reaches; `bag`: none, pack or hand."""

    height: float
    girth: float
    skin: Rgb
    hair: Rgb
    top: Rgb
    legs: Rgb
    shoes: Rgb
    coat: float
    bag: str
    long_hair: bool
    helmet: bool
    stride: float

    @classmethod
    def of(cls, rng: np.random.Generator) -> Person:
        def pick(options: tuple[Rgb, ...]) -> Rgb:
            c = np.array(options[int(rng.integers(len(options)))]) * rng.uniform(0.8, 1.15)
            return (float(c[0]), float(c[1]), float(c[2]))

        return cls(
            height=float(rng.choice([rng.uniform(1.55, 1.92), rng.uniform(1.15, 1.45)], p=[0.92, 0.08])),
            girth=float(rng.uniform(0.85, 1.2)),
            skin=pick(SKIN),
            hair=pick(HAIR),
            top=pick(TOPS),
            legs=pick(TROUSERS),
            shoes=pick(((30, 28, 28), (200, 200, 200), (90, 60, 40))),
            coat=float(rng.choice([0.0, 0.0, 0.12, 0.42])),
            bag=str(rng.choice(["none", "none", "pack", "hand"])),
            long_hair=bool(rng.random() < 0.4),
            helmet=bool(rng.random() < 0.5),
            stride=float(rng.uniform(1.25, 1.5)),
        )


def _capsules(p0: Floats, p1: Floats, r0: Floats, r1: Floats) -> Floats:
    """Tapered limbs in the picture: [n, 2] ends and [n] radii in pixels -> polygons [n, 10, 2]."""
    d = p1 - p0
    length = np.linalg.norm(d, axis=1, keepdims=True)
    d = np.where(length > 1e-3, d / np.maximum(length, 1e-3), np.array([0, 1], np.float32))
    n = np.stack([-d[:, 1], d[:, 0]], 1)
    cos, sin = np.cos(_ROUND)[None, :, None], np.sin(_ROUND)[None, :, None]
    head = p1[:, None] + r1[:, None, None] * (cos * d[:, None] + sin * n[:, None])
    tail = p0[:, None] - r0[:, None, None] * (cos * d[:, None] + sin * n[:, None])
    return np.concatenate([head, tail], axis=1)


class Body:
    """Jointed parts in metres (forward, sideways, up): limbs (count 0, two ends) and hulls (of `count` balls)."""

    def __init__(self, s: float, t: float, heading: tuple[float, float], view: View) -> None:
        self.origin, self.heading = (s, t), heading
        to_eye = (float(view.eye[0]) - s, float(view.eye[1]) - t)
        self.scale = view.f / max(math.hypot(*to_eye), 1.0)
        """About how many pixels a metre is."""
        self.near = 1.0 if to_eye[0] * heading[1] > to_eye[1] * heading[0] else -1.0
        """+1 when the right side is the nearer one: the limbs of the other are drawn first."""
        self.away = to_eye[0] * heading[0] + to_eye[1] * heading[1] < 0
        """We see the back."""
        self.ends: list[Point] = []
        self.radii: list[float] = []
        self.parts: list[tuple[int, int, Rgb, float]] = []

    def limb(
        self, a: Point, b: Point, ra: float, rb: float, colour: Rgb, tone: float = 1.0, keep: bool = False
    ) -> None:
        """A part under 4 pixels is left out unless it must be kept."""
        if not keep and self.scale * (max(abs(a[0] - b[0]), abs(a[1] - b[1]), abs(a[2] - b[2])) + ra) < 4:
            return
        self.parts.append((0, len(self.ends), colour, tone))
        self.ends += [a, b]
        self.radii += [ra, rb]

    def hull(self, points: list[tuple[Point, float]], colour: Rgb, tone: float = 1.0) -> None:
        if self.scale * points[0][1] < 0.7 and len(points) == 3:
            return
        self.parts.append((len(points), len(self.ends), colour, tone))
        self.ends += [p for p, _ in points]
        self.radii += [r for _, r in points]


def shapes(view: View, light: Light, bodies: list[Body], sunlit: list[float]) -> list[Shape]:
    """All figures of a frame at once (numpy's cost is a call, not a point): one shape each, empty behind the camera."""
    if not bodies:
        return []
    sizes = np.array([len(b.ends) for b in bodies])
    local = np.array([e for b in bodies for e in b.ends], np.float32)
    place = np.repeat(np.array([(*b.origin, *b.heading) for b in bodies], np.float32), sizes, axis=0)
    s, t, hs, ht = place.T
    x, y, z = local.T
    pixels, depth = project(view.matrix, np.stack([s + x * hs + y * ht, t + x * ht - y * hs, z], 1))
    radius = np.array([r for b in bodies for r in b.radii], np.float32) * view.f / np.maximum(depth, NEAR)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
    first = np.array([o + p[1] for b, o in zip(bodies, starts, strict=True) for p in b.parts if p[0] == 0], np.intp)
    limbs = _capsules(pixels[first], pixels[first + 1], radius[first], radius[first + 1])
    middle, extent = limbs.mean(axis=1, keepdims=True), np.ptp(limbs, axis=1)[:, None]
    side = 0.12 if light.sun[0] * view.matrix[0, 0] > 0 else -0.12
    # A lighter core, shifted to the light, makes a limb round.
    cores = fixed((limbs - middle) * (0.6, 0.86) + middle + extent * (side, -0.02))
    clouds = fixed(pixels[:, None] + radius[:, None, None] * _RING)
    tones = np.array([(*p[2], p[3]) for b in bodies for p in b.parts], np.float32)
    sun = np.repeat(np.array(sunlit, np.float32), [len(b.parts) for b in bodies])[:, None]
    shine = np.array(light.ambient, np.float32) * 0.9 + np.array(light.direct, np.float32) * 0.62 * sun
    dark = np.minimum(tones[:, :3] * shine * tones[:, 3:], 255)
    colours = zip(dark.tolist(), np.minimum(dark * 1.13, 255).tolist(), strict=True)
    drawn = zip(fixed(limbs), cores, strict=True)
    large = (np.maximum.reduceat(radius, starts) > 5.0).tolist()
    ahead = (np.minimum.reduceat(depth, starts) > NEAR).tolist()
    out: list[Shape] = []
    for body, start, big, whole in zip(bodies, starts, large, ahead, strict=True):
        shape: Shape = []
        for count, i, _, tone in body.parts:
            colour, lighter = next(colours)
            if count == 0:
                points, core = next(drawn)
            else:
                points = cv2.convexHull(clouds[start + i : start + i + count].reshape(-1, 2))[:, 0]
                core = points
                if big:
                    mid, reach = points.mean(axis=0), np.ptp(points, axis=0)
                    core = ((points - mid) * (0.6, 0.86) + mid + reach * (side, -0.02)).astype(np.int32)
            shape.append((points, colour))
            if big and tone > 0.72:
                shape.append((core, lighter))
        out.append(shape if whole else [])
    return out


def walker(person: Person, s: float, t: float, heading: tuple[float, float], walked: float, view: View) -> Body:
    """A person who has walked `walked` metres; standing when the heading never moves."""
    k = person.height / 1.75
    phase = 2 * math.pi * walked / (person.stride * k)
    body = Body(s, t, heading, view)
    near = body.near
    hip = (0.88 + 0.018 * math.cos(2 * phase)) * k
    shoulder, neck = hip + 0.5 * k, hip + 0.56 * k
    g = person.girth

    def leg(side: float) -> None:
        swing = phase if side > 0 else phase + math.pi
        thigh = 0.42 * math.sin(swing) + 0.06
        knee_bend = max(0.06, 0.75 * math.sin(swing + 2.1) + 0.12)
        tone = 1.0 if side == near else 0.78
        top = (0.0, side * 0.09 * k * g, hip)
        knee = (0.44 * k * math.sin(thigh), side * 0.09 * k, hip - 0.43 * k * math.cos(thigh))
        ankle = (
            knee[0] + 0.42 * k * math.sin(thigh - knee_bend),
            side * 0.085 * k,
            max(knee[2] - 0.40 * k * math.cos(thigh - knee_bend), 0.06),
        )
        heel, toes = ankle[0] - 0.04, ankle[0] + 0.15 * k
        sole = (toes, ankle[1], max(ankle[2] - 0.045, 0.025))
        body.limb((heel, ankle[1], ankle[2] - 0.03), sole, 0.045, 0.035, person.shoes, tone)
        body.limb(knee, ankle, 0.062 * k * g, 0.045 * k, person.legs, tone)
        body.limb(top, knee, 0.088 * k * g, 0.065 * k * g, person.legs, tone)

    def arm(side: float) -> None:
        swing = 0.5 * math.sin(phase + (math.pi if side > 0 else 0))
        tone = 1.0 if side == near else 0.76
        top = (0.0, side * 0.2 * k * g, shoulder - 0.02)
        elbow = (0.28 * k * math.sin(swing) - 0.03, side * 0.24 * k * g, shoulder - 0.28 * k * math.cos(swing))
        hand = (
            elbow[0] + 0.24 * k * math.sin(swing + 0.4),
            side * 0.22 * k * g,
            elbow[2] - 0.24 * k * math.cos(swing + 0.4),
        )
        body.limb(elbow, hand, 0.042 * k, 0.034 * k, person.top, tone)
        body.limb(hand, (hand[0] + 0.02, hand[1], hand[2] - 0.06 * k), 0.036 * k, 0.03 * k, person.skin, tone)
        body.limb(top, elbow, 0.056 * k * g, 0.045 * k, person.top, tone * 0.95)
        if person.bag == "hand" and side > 0:
            body.hull(
                [
                    ((hand[0] - 0.1, hand[1], hand[2] - 0.22), 0.05),
                    ((hand[0] + 0.12, hand[1], hand[2] - 0.22), 0.05),
                    ((hand[0], hand[1], hand[2] - 0.1), 0.03),
                ],
                (96, 70, 54),
                tone,
            )

    arm(-near)
    leg(-near)
    leg(near)
    pack = [
        ((-0.2 * k, -0.08, shoulder - 0.1), 0.1),
        ((-0.2 * k, 0.08, shoulder - 0.1), 0.1),
        ((-0.2 * k, 0.0, hip + 0.12), 0.13),
    ]
    if person.bag == "pack" and not body.away:
        body.hull(pack, (60, 62, 66), 0.85)
    low = hip - 0.02 - person.coat * k
    wide = 0.1 + 0.05 * (person.coat > 0.2)
    body.hull(
        [
            ((0, -0.15 * k * g, shoulder), 0.075 * k),
            ((0, 0.15 * k * g, shoulder), 0.075 * k),
            ((0, 0, shoulder + 0.04), 0.07 * k),
            ((0, -wide * k * g, low), 0.085 * k * g),
            ((0, wide * k * g, low), 0.085 * k * g),
        ],
        person.top,
    )
    if person.bag == "pack" and body.away:
        body.hull(pack, (60, 62, 66))
    body.limb((0, 0, neck - 0.02), (0.01, 0, neck + 0.08 * k), 0.055 * k, 0.05 * k, person.skin, 0.9)
    head = neck + 0.17 * k
    if person.long_hair:
        body.limb((-0.05, 0, head), (-0.07, 0, neck - 0.04), 0.1 * k, 0.08 * k, person.hair, 0.9)
    seen = person.hair if body.away else person.skin
    body.limb((0.02, 0, head - 0.03), (0.015, 0, head + 0.05), 0.085 * k, 0.092 * k, seen, keep=True)
    body.limb((-0.03, 0, head + 0.02), (-0.015, 0, head + 0.07), 0.09 * k, 0.088 * k, person.hair, 1.0)
    arm(near)
    return body
