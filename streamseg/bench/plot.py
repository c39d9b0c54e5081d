"""Accuracy against speed, drawn from what `streamseg bench engine` measured. No thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamseg.drawing import GRID, INK, PALE, Colour, centred, save, ticks, upright, width, write
from streamseg.errors import ConfigError
from streamseg.types import U8

WIDTH, HEIGHT = 1000, 640
LEFT, RIGHT, TOP, BOTTOM = 78, 960, 66, 500
COLOURS: tuple[Colour, ...] = ((190, 110, 30), (40, 60, 200), (90, 140, 20), (170, 60, 140), (30, 140, 210))
"""One for each data set: accuracies on different data must not be compared."""
STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Point:
    """`ms` a picture and `miou` in percent on the data `of`; `published` are the weights of others."""

    name: str
    detail: str
    ms: float
    miou: float
    of: str
    published: bool


@dataclass(frozen=True, slots=True)
class _Axes:
    """`low` and `high` ms (logarithmic), `least` and `most` percent."""

    low: float
    high: float
    least: float
    most: float

    def place(self, ms: float, miou: float) -> tuple[int, int]:
        across = math.log(ms / self.low) / math.log(self.high / self.low)
        up = (miou - self.least) / (self.most - self.least)
        return round(LEFT + (RIGHT - LEFT) * across), round(BOTTOM - (BOTTOM - TOP) * up)


def points(report: dict[str, Any]) -> list[Point]:
    """Of each engine, backend and precision whose accuracy is known: the row with the fewest threads, without
    smoothing where that was measured (the accuracies are of single pictures)."""
    chosen: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in sorted(report["results"], key=lambda r: (r["batch"], r["threads"], r["smoothing"] != "off")):
        if row["miou"] is not None:
            chosen.setdefault((row["engine"], row["backend"], row["precision"]), row)
    backends = {row["backend"] for row in chosen.values()}
    return [
        Point(
            name=row["name"],
            detail=" ".join(
                [row["backend"]] * (len(backends) > 1)
                + [row["precision"]] * (row["precision"] != "auto")
                + [f"{row['batch']} at once"] * (row["batch"] > 1)
            ),
            ms=row["median_ms"] / row["batch"],
            miou=100 * row["miou"],
            of=row["miou_of"] or "data not stated",
            published=row["origin"] == "published",
        )
        for row in chosen.values()
    ]


def draw(found: Sequence[Point], footnote: str) -> U8:
    """BGR u8 [h, w, 3]; `found` must not be empty. Discs are this project's weights, diamonds those of others."""
    colours = {of: COLOURS[i % len(COLOURS)] for i, of in enumerate(dict.fromkeys(p.of for p in found))}
    axes = _axes(found)
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _grid(canvas, axes)
    places = [axes.place(p.ms, p.miou) for p in found]
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y in places]
    taken += _joined(canvas, found, places, colours)
    for point, place in zip(found, places, strict=True):
        _mark(canvas, place, colours[point.of], point.published)
        label(canvas, f"{point.name} {point.detail}".strip(), place, taken)
    _legend(canvas, found, colours)
    write(canvas, footnote, (LEFT, HEIGHT - 18), PALE, 0.42)
    return canvas


def write_plot(path: Path, report: dict[str, Any]) -> None:
    """Writes the picture. Raises ConfigError when no engine's accuracy is known, OSError."""
    found = points(report)
    if not found:
        raise ConfigError("--plot: no engine's manifest has an accuracy; `streamseg eval … --record NAME` measures it")
    shown = [row for row in report["results"] if row["miou"] is not None]
    threads = min(row["threads"] for row in shown)
    sizes, used = (", ".join(dict.fromkeys(row[key] for row in shown)) for key in ("size", "backend"))
    counted = f"{threads} thread{'s' if threads > 1 else ''}"
    note = f"one picture to its label map, {sizes}, {counted}, {used}, median of {report['runs']} runs; {report['cpu']}"
    save(path, draw(found, note))


def _axes(found: Sequence[Point]) -> _Axes:
    times, shares = [p.ms for p in found], [p.miou for p in found]
    # At least a factor of four and twenty points, so that little is not drawn large.
    middle = math.sqrt(min(times) * max(times))
    low, high = min(min(times) / 1.3, middle / 2), max(max(times) * 1.5, middle * 2)
    centre = (min(shares) + max(shares)) / 2
    least, most = min(min(shares) - 4, centre - 10), max(max(shares) + 4, centre + 10)
    return _Axes(low, high, max(0.0, least), min(100.0, max(most, least + 5)))


def _grid(canvas: U8, axes: _Axes) -> None:
    for y in ticks(axes.least, axes.most):
        _, row = axes.place(axes.low, y)
        cv2.line(canvas, (LEFT, row), (RIGHT, row), GRID, 1)
        write(canvas, f"{y:g}", (LEFT - 12 - width(f"{y:g}"), row + 5), PALE)
    for x in _steps(axes.low, axes.high):
        column, _ = axes.place(x, axes.least)
        cv2.line(canvas, (column, TOP), (column, BOTTOM), GRID, 1)
        centred(canvas, f"{x:g}", (column, BOTTOM + 18), PALE)
    cv2.rectangle(canvas, (LEFT, TOP), (RIGHT, BOTTOM), PALE, 1)
    write(canvas, "accuracy against speed", (LEFT, 36), INK, 0.62)
    centred(canvas, "milliseconds a picture", ((LEFT + RIGHT) // 2, BOTTOM + 42), INK)
    upright(canvas, "mIoU %", 24, (TOP + BOTTOM + width("mIoU %", 0.5)) // 2, INK)


def _steps(low: float, high: float) -> list[float]:
    """Round values on a logarithmic axis: fewer where the axis is long."""
    steps = STEPS if high / low < 8 else (1, 2, 5) if high / low < 200 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def _joined(
    canvas: U8, found: Sequence[Point], places: Sequence[tuple[int, int]], colours: dict[str, Colour]
) -> list[Box]:
    """A thin line through the points of one engine; returns what the lines cover."""
    covered: list[Box] = []
    for name in dict.fromkeys((p.name, p.of) for p in found):
        line = sorted(at for p, at in zip(found, places, strict=True) if (p.name, p.of) == name)
        faint = tuple((255 + c) // 2 for c in colours[name[1]])
        cv2.polylines(canvas, [np.array(line, np.int32)[:, None]], False, faint, 1, cv2.LINE_AA)
        for (x, y), (to_x, to_y) in pairwise(line):
            for t in np.linspace(0, 1, 60):
                at_x, at_y = round(x + (to_x - x) * t), round(y + (to_y - y) * t)
                covered.append((at_x - 1, at_y - 1, at_x + 1, at_y + 1))
    return covered


def _mark(canvas: U8, place: tuple[int, int], colour: Colour, published: bool) -> None:
    x, y = place
    if published:
        diamond = np.array([(x, y - 8), (x + 8, y), (x, y + 8), (x - 8, y)], np.int32)[:, None]
        cv2.fillPoly(canvas, [diamond], (255, 255, 255), cv2.LINE_AA)
        cv2.polylines(canvas, [diamond], True, colour, 2, cv2.LINE_AA)
    else:
        cv2.circle(canvas, place, 7, colour, -1, cv2.LINE_AA)


def label(canvas: U8, text: str, place: tuple[int, int], taken: list[Box]) -> None:
    """To the right of its point, or where it covers least; `taken` grows by it."""
    (x, y), across = place, width(text)
    right, left, middle = x + 14, x - 14 - across, x - across // 2
    rows = (y + 5, y - 14, y + 24, y - 32, y + 42)
    wanted = [(right, rows[0]), (left, rows[0])] + [(c, r) for r in rows[1:] for c in (middle, right, left)]
    boxes = [(a - 3, b - 14, a + across + 3, b + 5) for a, b in wanted]
    inside = [b for b in boxes if b[0] > LEFT and b[2] < RIGHT and b[1] > TOP and b[3] < BOTTOM] or boxes
    chosen = min(inside, key=lambda box: sum(_overlap(box, other) for other in taken))
    taken.append(chosen)
    canvas[chosen[1] + 2 : chosen[3], chosen[0] : chosen[2]] = 255  # no grid line behind letters
    write(canvas, text, (chosen[0] + 3, chosen[3] - 5), INK)


def _overlap(a: Box, b: Box) -> int:
    """Pixels that both cover."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _legend(canvas: U8, found: Sequence[Point], colours: dict[str, Colour]) -> None:
    x, y = LEFT + 8, BOTTOM + 74
    for of, colour in colours.items():
        canvas[y - 10 : y + 2, x - 6 : x + 6] = colour
        write(canvas, f"mIoU on {of}", (x + 14, y), INK)
        x += 40 + width(f"mIoU on {of}")
    x, y = LEFT + 8, BOTTOM + 100
    for published, text in ((False, "trained with this project"), (True, "published weights, measured here")):
        if any(p.published == published for p in found):
            _mark(canvas, (x, y - 5), PALE, published)
            write(canvas, text, (x + 14, y), INK)
            x += 40 + width(text)
