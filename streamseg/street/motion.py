"""The timetable of the synthetic street: who is where at a given second. It repeats only after many minutes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamseg.street.cars import CAR_PAINTS, PosedCar, car
from streamseg.street.people import Person
from streamseg.street.scene import Plan

POOL = 97
"""Slots of one flow before it repeats itself."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One passage: `delay` seconds after its slot begins the actor enters at `start`; without a `look` nobody does."""

    delay: float
    speed: float
    side: float
    phase: float
    look: PosedCar | Person | None


@dataclass(frozen=True, slots=True)
class Flow:
    """Actors of one kind that follow each other along a line: axis 1 along the street, 0 across it."""

    kind: str
    axis: int
    line: float
    start: float
    stop: float
    period: float
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Actor:
    kind: str
    s: float
    t: float
    heading: tuple[float, float]
    walked: float
    look: PosedCar | Person


def flows(plan: Plan) -> tuple[Flow, ...]:
    out = []
    for side in (-1, 1):
        ahead = 1 if (side < 0) == plan.drive_left else -1
        rng = np.random.default_rng([plan.seed, 20 + side])
        ends = (-16.0, plan.end - 1.0) if ahead > 0 else (plan.end - 1.0, -16.0)
        speed = rng.uniform(7.5, 12.5)
        out.append(_flow(rng, plan, "car", 1, side * plan.lane / 2, ends, 3.4, 0.5 * plan.busy, speed, ahead))
        beside, ends = side * (plan.lane + plan.bike / 2), (ends[0] * 0.7, ends[1] * 0.7)
        out.append(_flow(rng, plan, "bike", 1, beside, ends, 5.5, 0.4 * plan.busy, 4.8, ahead))
    for edge in plan.sides:
        rng = np.random.default_rng([plan.seed, 40 + edge.sign])
        middle = edge.sign * (edge.pavement + 1.0 + edge.back - 0.3) / 2
        for ahead in (-1, 1):
            ends = (-6.0, 100.0) if ahead > 0 else (100.0, -6.0)
            out.append(_flow(rng, plan, "person", 1, middle, ends, 5.0, 0.34 * plan.busy, 1.35, ahead))
    if plan.zebra > 0:
        rng = np.random.default_rng([plan.seed, 60])
        reach = plan.road + 1.4
        for ahead in (-1, 1):
            ends = (-ahead * reach, ahead * reach)
            out.append(_flow(rng, plan, "person", 0, plan.zebra, ends, 1.5, 0.5 * plan.busy, 1.35, ahead))
    return tuple(out)


CYCLE_S = 34.0
"""Traffic leaves the crossing free for a part of every so many seconds."""


def _flow(
    rng: np.random.Generator,
    plan: Plan,
    kind: str,
    axis: int,
    line: float,
    ends: tuple[float, float],
    period: float,
    chance: float,
    speed: float,
    ahead: int,
) -> Flow:
    slots = []
    count = POOL if axis == 1 else 113
    if (plan.zebra > 0 and kind != "person") or axis == 0:
        period = CYCLE_S / round(CYCLE_S / period)
        count = round(CYCLE_S / period) * 9
    for k in range(count):
        delay = float(rng.uniform(0, period * (0.25 if kind == "car" else 0.6)))
        used = bool(rng.random() < chance)
        v = float(speed * rng.uniform(0.75, 1.25)) if axis == 1 and kind == "person" else speed
        if plan.zebra > 0 and (kind != "person" or axis == 0):
            # The moment at the crossing decides: wheels in the first part of the cycle, feet in the second.
            there = k * period + delay + (abs(plan.zebra - ends[0]) / v if axis == 1 else 0.0)
            moment = math.fmod(there, CYCLE_S)
            used &= moment < 20 if kind != "person" else 21.5 < moment < 25.5
        wide = 0.12 if kind != "person" else 1.0 if axis == 0 else _room(plan, line)
        look = _look(rng, plan, kind, ahead) if used else None
        slots.append(Slot(delay, v, float(rng.uniform(-wide, wide)), float(rng.uniform(0, 9)), look))
    return Flow(kind, axis, line, ends[0], ends[1], period, tuple(slots))


def _room(plan: Plan, line: float) -> float:
    side = plan.sides[0] if plan.sides[0].sign * line > 0 else plan.sides[1]
    return max((side.back - 0.3 - side.pavement - 1.0) / 2, 0.1)


def _look(rng: np.random.Generator, plan: Plan, kind: str, ahead: int) -> PosedCar | Person:
    if kind != "car":
        return Person.of(rng)
    body = str(rng.choice(["hatch", "saloon", "estate", "suv", "van", "bus"], p=[0.32, 0.22, 0.16, 0.16, 0.1, 0.04]))
    colour = (190.0, 40.0, 40.0) if body == "bus" else CAR_PAINTS[int(rng.integers(len(CAR_PAINTS)))]
    return PosedCar.of(car(body, colour, plan.light.lamps), ahead, plan.light)


def actors(flow_list: tuple[Flow, ...], second: float) -> list[Actor]:
    """Everybody on the street at `second`, in no order."""
    out: list[Actor] = []
    for flow in flow_list:
        length = abs(flow.stop - flow.start)
        sign = 1 if flow.stop > flow.start else -1
        slowest = 1.0 if flow.kind == "person" else 4.0
        last = math.floor(second / flow.period)
        for k in range(last - math.ceil(length / slowest / flow.period) - 1, last + 1):
            slot = flow.slots[k % len(flow.slots)]
            if slot.look is None:
                continue
            gone = (second - k * flow.period - slot.delay) * slot.speed
            if 0 <= gone < length:
                along, across = flow.start + sign * gone, flow.line + slot.side
                s, t = (across, along) if flow.axis == 1 else (along, across)
                heading = (0.0, float(sign)) if flow.axis == 1 else (float(sign), 0.0)
                out.append(Actor(flow.kind, s, t, heading, gone + slot.phase, slot.look))
    return out
