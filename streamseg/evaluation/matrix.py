"""The picture of a confusion matrix: rows are the truth, columns what was predicted. Drawn with OpenCV; no thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streamseg import drawing
from streamseg.drawing import GRID, INK, PALE, Colour
from streamseg.errors import ConfigError
from streamseg.evaluation.accuracy import Confusion
from streamseg.types import U8, ClassInfo

F64 = NDArray[np.float64]
PAPER, ABSENT = (255, 255, 255), (242, 242, 242)
RIGHT_BGR, WRONG_BGR = (105, 125, 20), (40, 60, 200)
"""A full diagonal cell is teal, a full cell beside it red; white is nothing."""
MARGIN, SWATCH, HEAD = 28, 14, 92
SIZES = ((4, 104), (7, 84), (12, 64), (30, 48))
"""(classes at most, pixels of a cell)"""
SMALLEST = 20
"""Of a cell, where there are more classes; too small for numbers."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`left` and `top` of the matrix, its `cell`, and whether names above the columns stand upright."""

    left: int
    top: int
    cell: int
    classes: int
    upright: bool

    @property
    def right(self) -> int:
        return self.left + self.cell * self.classes

    @property
    def bottom(self) -> int:
        return self.top + self.cell * self.classes

    def corner(self, row: int, column: int) -> tuple[int, int]:
        return self.left + column * self.cell, self.top + row * self.cell


def write(path: Path, confusion: Confusion, classes: Sequence[ClassInfo], title: str) -> None:
    """Writes `draw`'s picture. Raises ConfigError when there were no labels, OSError."""
    if not confusion.counts.any():
        raise ConfigError("--confusion: the data has no labels of the engine's classes")
    drawing.save(path, draw(confusion, classes, title))


def draw(confusion: Confusion, classes: Sequence[ClassInfo], title: str) -> U8:
    """BGR u8 [h, w, 3]. Numbers are percent of the row's pixels; beside the rows each class's IoU and its share of the
    truth. A class that the truth does not have is a grey row."""
    layout = laid_out([c.name for c in classes])
    totals = confusion.counts.sum(1).astype(np.float64)
    shares = confusion.counts / np.maximum(totals, 1)[:, None]
    width = max(layout.right + 190, 2 * MARGIN + drawing.width(title, 0.62))
    canvas = np.full((layout.bottom + 60, width, 3), 255, np.uint8)
    drawing.write(canvas, title, (MARGIN, 34), INK, 0.62)
    measured = f"mIoU {_percent(confusion.miou())}     pixel accuracy {_percent(confusion.pixel_accuracy())}"
    drawing.write(canvas, measured, (MARGIN, 62), INK, 0.52)
    for row in range(layout.classes):
        for column in range(layout.classes):
            _cell(canvas, layout, row, column, shares[row, column] if totals[row] else None)
    _names(canvas, layout, classes)
    _beside(canvas, layout, confusion.iou(), totals)
    _frame(canvas, layout)
    return canvas


def laid_out(names: list[str]) -> Layout:
    cell = next((pixels for most, pixels in SIZES if len(names) <= most), SMALLEST)
    widest = max(drawing.width(name, 0.5) for name in names)
    upright = widest > cell - 10
    left = MARGIN + 34 + max(widest, 60) + SWATCH + 18
    return Layout(left, HEAD + 34 + (widest if upright else 14) + SWATCH + 18, cell, len(names), upright)


def _cell(canvas: U8, layout: Layout, row: int, column: int, share: float | None) -> None:
    """`share` None: the truth has nothing of the row."""
    (x, y), size = layout.corner(row, column), layout.cell
    # Square root for mistakes: 1 % is worth seeing, and would be lost between 0 and 100.
    amount = 0.0 if share is None else share if row == column else min(1.0, share**0.5)
    fill = ABSENT if share is None else _mixed(RIGHT_BGR if row == column else WRONG_BGR, 0.92 * amount)
    canvas[y : y + size, x : x + size] = fill
    if share is not None and share >= 0.0005 and size > SMALLEST:
        text = "100" if share >= 0.9995 else f"{100 * share:.1f}"
        dark = np.dot(fill, (0.114, 0.587, 0.299)) < 150
        drawing.centred(
            canvas, text, (x + size // 2, y + size // 2), PAPER if dark else INK, 0.52 if size >= 64 else 0.42
        )


def _names(canvas: U8, layout: Layout, classes: Sequence[ClassInfo]) -> None:
    half = layout.cell // 2
    for number, each in enumerate(classes):
        colour = each.colour[::-1]
        _, y = layout.corner(number, 0)
        _swatch(canvas, layout.left - SWATCH - 8, y + half - SWATCH // 2, colour)
        width = drawing.width(each.name, 0.5)
        drawing.write(canvas, each.name, (layout.left - SWATCH - 18 - width, y + half + 5), INK, 0.5)
        x, _ = layout.corner(0, number)
        _swatch(canvas, x + half - SWATCH // 2, layout.top - SWATCH - 8, colour)
        if layout.upright:
            drawing.upright(canvas, each.name, x + half, layout.top - SWATCH - 16)
        else:
            drawing.centred(canvas, each.name, (x + half, layout.top - SWATCH - 22), INK, 0.5)
    drawing.centred(canvas, "predicted", ((layout.left + layout.right) // 2, HEAD + 8), PALE, 0.5)
    middle = (layout.top + layout.bottom + drawing.width("truth", 0.5)) // 2
    drawing.upright(canvas, "truth", MARGIN + 8, middle, PALE)
    drawing.write(canvas, "% of the pixels of each true class", (layout.left, layout.bottom + 30), PALE, 0.45)


def _beside(canvas: U8, layout: Layout, iou: F64, totals: F64) -> None:
    """Two columns of numbers to the right of the matrix."""
    scale = 0.52 if layout.cell >= 64 else 0.45
    for title, values, x in (
        ("IoU %", iou, layout.right + 52),
        ("% of truth", totals / max(totals.sum(), 1), layout.right + 126),
    ):
        drawing.centred(canvas, title, (x, layout.top - 16), PALE, 0.45)
        for row, value in enumerate(values):
            y = layout.corner(row, 0)[1] + layout.cell // 2
            text = "-" if np.isnan(value) else f"{100 * value:.1f}"
            drawing.centred(canvas, text, (x, y), INK if title == "IoU %" else PALE, scale)


def _frame(canvas: U8, layout: Layout) -> None:
    for number in range(layout.classes + 1):
        x, y = layout.corner(number, number)
        canvas[y, layout.left : layout.right + 1] = GRID
        canvas[layout.top : layout.bottom + 1, x] = GRID
    cv2.rectangle(canvas, (layout.left, layout.top), (layout.right, layout.bottom), PALE, 1)


def _swatch(canvas: U8, x: int, y: int, colour: Sequence[int]) -> None:
    canvas[y : y + SWATCH, x : x + SWATCH] = colour
    cv2.rectangle(canvas, (x, y), (x + SWATCH, y + SWATCH), PALE, 1)


def _mixed(colour: Colour, amount: float) -> Colour:
    """White at 0, `colour` at 1."""
    blue, green, red = (round(255 + (c - 255) * amount) for c in colour)
    return blue, green, red


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f} %"
