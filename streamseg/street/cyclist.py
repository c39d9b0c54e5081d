"""Cyclists of the synthetic street: a rider whose legs follow the pedals, on a bicycle whose wheels turn."""

from __future__ import annotations

import math

from streamseg.street.light import Rgb
from streamseg.street.people import CIRCLE, Body, Person
from streamseg.street.view import View


def _knee(hip: tuple[float, float], foot: tuple[float, float], bone: float) -> tuple[float, float]:
    """Where the knee is (forward, up) between hip and foot, bent forward; both bones `bone` metres long."""
    dx, dy = foot[0] - hip[0], foot[1] - hip[1]
    d = max(math.hypot(dx, dy), 1e-6)
    off = math.sqrt(max(bone * bone - d * d / 4, 0))
    return ((hip[0] + foot[0]) / 2 - dy / d * off, (hip[1] + foot[1]) / 2 + dx / d * off)


def cyclist(
    person: Person, s: float, t: float, heading: tuple[float, float], ridden: float, view: View, lamps: bool
) -> Body:
    """Rider and bicycle; wheels and pedals turn with the metres ridden."""
    body = Body(s, t, heading, view)
    near = body.near
    frame: Rgb = (46, 50, 56) if person.coat == 0 else (120, 34, 34)
    dark: Rgb = (28, 28, 30)
    for x in (-0.52, 0.52):
        if body.scale < 22:
            tyre = [((x + 0.3 * math.cos(a), 0.0, 0.34 + 0.3 * math.sin(a)), 0.03) for a in CIRCLE[::3].tolist()]
            body.hull(tyre, (66, 66, 66))
            continue
        rim = [(x + 0.33 * math.cos(a), 0.0, 0.34 + 0.33 * math.sin(a)) for a in CIRCLE.tolist()]
        for a, b in zip(rim, rim[1:] + rim[:1], strict=True):
            body.limb(a, b, 0.024, 0.024, dark, 0.7, keep=True)
        for i in range(4):
            v = ridden / 0.34 + i * math.pi / 4
            dx, dy = 0.32 * math.cos(v), 0.32 * math.sin(v)
            body.limb((x + dx, 0, 0.34 - dy), (x - dx, 0, 0.34 + dy), 0.005, 0.005, (150, 150, 150), 0.7)
    crank = (-0.06, 0.3)
    turn = -ridden / 1.9 * 2 * math.pi / 2.4
    hip, hand = (-0.2, 0.98), (0.42, 1.02)

    def leg(side: float) -> None:
        v = turn + (math.pi if side > 0 else 0)
        foot = (crank[0] + 0.17 * math.cos(v), crank[1] + 0.17 * math.sin(v))
        knee = _knee(hip, (foot[0], foot[1] + 0.06), 0.43)
        tone, y = (1.0 if side == near else 0.75), side * 0.1
        body.limb((foot[0] - 0.08, y, foot[1] + 0.03), (foot[0] + 0.12, y, foot[1]), 0.045, 0.035, person.shoes, tone)
        body.limb((knee[0], y, knee[1]), (foot[0] - 0.02, y, foot[1] + 0.07), 0.06, 0.045, person.legs, tone)
        body.limb((hip[0], y, hip[1]), (knee[0], y, knee[1]), 0.09, 0.065, person.legs, tone)

    leg(-near)
    for p, q in (
        ((-0.52, 0.34), crank),
        (crank, (-0.22, 0.9)),
        (crank, (0.36, 0.82)),
        ((-0.22, 0.8), (0.36, 0.86)),
        ((0.52, 0.34), (0.38, 0.98)),
        ((-0.52, 0.34), (-0.2, 0.78)),
    ):
        body.limb((p[0], 0, p[1]), (q[0], 0, q[1]), 0.016, 0.016, frame, 0.7)
    body.limb((0.38, -0.24, 1.0), (0.38, 0.24, 1.0), 0.02, 0.02, dark, 0.7)
    leg(near)
    body.hull(
        [((-0.2, -0.1, 1.0), 0.1), ((-0.2, 0.1, 1.0), 0.1), ((0.12, -0.16, 1.42), 0.075), ((0.12, 0.16, 1.42), 0.075)],
        person.top,
    )
    if person.bag == "pack":
        body.hull([((-0.2, 0, 1.22), 0.12), ((-0.06, 0, 1.45), 0.12)], (60, 62, 66))
    sleeve = person.top if person.coat else person.skin
    for side in (-near, near):
        tone = 1.0 if side == near else 0.78
        body.limb((0.13, side * 0.18, 1.4), (0.24, side * 0.24, 1.15), 0.055, 0.045, person.top, tone)
        body.limb((0.24, side * 0.24, 1.15), (hand[0], side * 0.22, hand[1]), 0.042, 0.034, sleeve, tone)
    body.limb((0.16, 0, 1.46), (0.2, 0, 1.54), 0.055, 0.05, person.skin, 0.9)
    body.limb((0.23, 0, 1.58), (0.22, 0, 1.65), 0.085, 0.09, person.skin, keep=True)
    body.limb((0.17, 0, 1.64), (0.22, 0, 1.69), 0.1, 0.1, (225, 225, 220) if person.helmet else person.hair)
    if lamps:
        body.hull([((0.5, 0, 0.9), 0.05)], (500, 500, 460), 0.7)
    return body
