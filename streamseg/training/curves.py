"""A picture of a run's course, drawn from its log: the loss in blue, the accuracy in red, over epochs. No thread."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg.drawing import ticks, write
from streamseg.types import U8

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 830, 40, 370
BLUE, RED, INK, GRID = (190, 110, 30), (50, 50, 210), (60, 60, 60), (225, 225, 225)  # BGR


def draw(folder: Path) -> None:
    """Writes `folder`/curves.png from `folder`/log.jsonl; nothing where no epoch has been logged yet."""
    rows = _rows(folder / "log.jsonl")
    loss = [(row["epoch"], row["loss"]) for row in rows if _number(row.get("loss"))]
    miou = [(row["epoch"], row["miou"]) for row in rows if _number(row.get("miou"))]
    if not loss:
        return
    last = max(x for x, _ in loss + miou)
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for x in ticks(0, last):
        column = _column(x, last)
        cv2.line(canvas, (column, TOP), (column, BOTTOM), GRID, 1)
        write(canvas, f"{x:g}", (column - 8, BOTTOM + 20), INK)
    write(canvas, "epoch", (RIGHT - 40, BOTTOM + 40), INK)
    _curve(canvas, loss, last, max(y for _, y in loss), BLUE, LEFT - 50)
    write(canvas, f"loss {loss[-1][1]:.3f}", (LEFT, TOP - 14), BLUE)
    if miou:
        _curve(canvas, miou, last, max(y for _, y in miou), RED, RIGHT + 10)
        write(canvas, f"mIoU {miou[-1][1]:.3f}", (RIGHT - 100, TOP - 14), RED)
    cv2.rectangle(canvas, (LEFT, TOP), (RIGHT, BOTTOM), INK, 1)
    cv2.imwrite(str(folder / "curves.png"), canvas)


def _rows(log: Path) -> list[dict[str, Any]]:
    """What was logged; a last line that was cut short by a crash is left out."""
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _column(x: float, last: float) -> int:
    return round(LEFT + (RIGHT - LEFT) * x / last)


def _curve(canvas: U8, points: Sequence[tuple[float, float]], last: float, top: float, colour: Any, at: int) -> None:
    """The line (its single points marked where they are few) and, from column `at`, its scale from 0 to `top`."""
    top = max(top, 1e-6) * 1.05
    rows = [round(BOTTOM - (BOTTOM - TOP) * y / top) for _, y in points]
    line: NDArray[np.int32] = np.array(
        [(_column(x, last), r) for (x, _), r in zip(points, rows, strict=True)], np.int32
    )
    cv2.polylines(canvas, [line[:, None]], False, colour, 2, cv2.LINE_AA)
    for point in line if len(line) < 40 else ():
        cv2.circle(canvas, point.tolist(), 3, colour, -1, cv2.LINE_AA)
    for y in ticks(0, top):
        write(canvas, f"{y:.3g}", (at, round(BOTTOM - (BOTTOM - TOP) * y / top) + 5), colour)
