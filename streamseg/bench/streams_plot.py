"""Latency over the number of cameras, drawn from what `streamseg bench streams` measured. No thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamseg.drawing import GRID, INK, PALE, Colour, centred, save, ticks, upright, width, write
from streamseg.errors import EngineError
from streamseg.types import U8

WIDTH, HEIGHT = 900, 540
LEFT, RIGHT, TOP, BOTTOM = 78, 760, 66, 420
SERIES: dict[str, Colour] = {"p50": (150, 170, 60), "p95": (190, 110, 30), "p99": (200, 170, 140)}
LIMIT: Colour = (40, 60, 200)


def write_plot(path: Path, report: dict[str, Any]) -> None:
    """Writes the picture. Raises EngineError when no step could be measured, OSError."""
    rows = [row for row in report["steps"] if row.get("p95_ms") is not None]
    if not rows:
        raise EngineError("--plot: no step was measured")
    save(path, draw(rows, report["p95_limit_ms"], _notes(report)))


def draw(rows: list[dict[str, Any]], limit_ms: float, notes: list[str]) -> U8:
    """BGR u8 [h, w, 3]. Discs are steps that hold, crosses those that do not; what is far above the limit is drawn at
    the upper edge."""
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    highest = max(row["cameras"] for row in rows)
    within = [row[f"{name}_ms"] for row in rows for name in SERIES if row["holds"]]
    top = max(1.6 * limit_ms, 1.1 * max(within, default=0))

    def place(cameras: int, ms: float) -> tuple[int, int]:
        across = LEFT + (RIGHT - LEFT) * cameras / (highest * 1.04)
        return round(across), round(BOTTOM - (BOTTOM - TOP) * min(ms, top) / top)

    for y in ticks(0, top):
        _, row = place(0, y)
        cv2.line(canvas, (LEFT, row), (RIGHT, row), GRID, 1)
        write(canvas, f"{y:g}", (LEFT - 12 - width(f"{y:g}"), row + 5), PALE)
    for x in [x for x in ticks(0, highest) if x == int(x)]:
        centred(canvas, f"{x:g}", (place(int(x), 0)[0], BOTTOM + 18), PALE)
    _, row = place(0, limit_ms)
    cv2.line(canvas, (LEFT, row), (RIGHT, row), LIMIT, 1, cv2.LINE_AA)
    write(canvas, f"p95 limit {limit_ms:g}", (RIGHT + 10, row + 5), LIMIT)
    for name, colour in SERIES.items():
        points = [place(each["cameras"], each[f"{name}_ms"]) for each in rows]
        cv2.polylines(canvas, [np.array(points, np.int32)[:, None]], False, colour, 2, cv2.LINE_AA)
        for each, point in zip(rows, points, strict=True):
            if each["holds"]:
                cv2.circle(canvas, point, 5, colour, -1, cv2.LINE_AA)
            else:
                cv2.drawMarker(canvas, point, colour, cv2.MARKER_TILTED_CROSS, 11, 2, cv2.LINE_AA)
    _labels(canvas, rows)
    for number, note in enumerate(notes):
        write(canvas, note, (LEFT, BOTTOM + 66 + 18 * number), PALE, 0.42)
    return canvas


def _labels(canvas: U8, rows: list[dict[str, Any]]) -> None:
    cv2.rectangle(canvas, (LEFT, TOP), (RIGHT, BOTTOM), PALE, 1)
    write(canvas, "latency over cameras", (LEFT, 36), INK, 0.62)
    centred(canvas, "cameras", ((LEFT + RIGHT) // 2, BOTTOM + 42), INK)
    upright(canvas, "milliseconds", 24, (TOP + BOTTOM + width("milliseconds", 0.5)) // 2, INK)
    x = RIGHT - 330
    for name, colour in SERIES.items():
        cv2.line(canvas, (x, 32), (x + 24, 32), colour, 2, cv2.LINE_AA)
        write(canvas, name, (x + 30, 37), INK)
        x += 80
    if not all(row["holds"] for row in rows):
        cv2.drawMarker(canvas, (x + 6, 32), PALE, cv2.MARKER_TILTED_CROSS, 11, 2, cv2.LINE_AA)
        write(canvas, "does not hold", (x + 18, 37), INK)


def _notes(report: dict[str, Any]) -> list[str]:
    facts, engine = report["machine"], report["engine"]
    gpus = ", ".join(dict.fromkeys(gpu["name"] for gpu in facts["gpus"]))
    machine = f"{facts['cpu']}, {facts['cores']} cores{', ' * bool(gpus)}{gpus}, {facts['date'][:10]}"
    size = "x".join(map(str, engine["size"]))
    return [
        f"{report['source']}"[:120],
        f"{engine['name']} on {engine['backend']}, {engine['precision']}, {size}; "
        f"{' and '.join(report['subscribed'])} of {report['watched']} subscribed to",
        machine,
    ]
