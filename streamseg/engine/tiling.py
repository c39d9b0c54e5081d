"""What of a picture is analysed: a part of it (`roi`), whole or as overlapping tiles whose scores are blended.

The part is scaled once to the size of all tiles together, and tiles begin at whole cells of the network's output. So
their score maps (the smoothed probabilities) lie on one grid: blending them there, with weights that rise and fall
linearly over the overlap, costs a hundredth of blending pixels, and leaves no seam for argmax to show. Stateless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from streamseg.engine import upsample
from streamseg.nvidia.surface import Resident, Surface
from streamseg.types import U8, Picture, Roi

F32 = NDArray[np.float32]
Size = tuple[int, int]
"""(width, height)"""
USUAL: Size = (1920, 1080)
"""Pixels of the source that a tile covers, more or less, where their number is left to us: 4K becomes 2x2."""
MOST = 8


@dataclass(frozen=True, slots=True)
class Tiling:
    """`columns` and `rows` None: as many as the picture's size asks for. `overlap`: the share of a tile that its
    neighbour covers too."""

    columns: int | None = None
    rows: int | None = None
    overlap: float = 0.125

    def counts(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) for an area of so many source pixels."""
        columns, rows = (min(MOST, max(1, round(side / of))) for side, of in zip((width, height), USUAL, strict=True))
        return self.columns or columns, self.rows or rows


@dataclass(frozen=True, slots=True)
class View:
    """How one stream is looked at. `roi`: [x, y, width, height] in shares of the picture."""

    roi: tuple[float, float, float, float] | None = None
    tiling: Tiling | None = None

    def part(self, width: int, height: int) -> Roi | None:
        """`roi` in the pixels of a picture, even ones, as chroma has one sample for two; None: all of it."""
        if self.roi is None:
            return None
        x, columns = _even(self.roi[0], self.roi[2], width)
        y, rows = _even(self.roi[1], self.roi[3], height)
        return None if (columns, rows) == (width, height) else Roi(x, y, columns, rows)


WHOLE = View()


def _even(begin: float, length: float, whole: int) -> tuple[int, int]:
    """(first, count) of the even pixels nearest to two shares; two at least."""
    most = whole // 2 * 2
    first = min(2 * round(begin * whole / 2), most - 2)
    last = min(2 * round((begin + length) * whole / 2), most)
    return first, max(2, last - first)


@dataclass(frozen=True)
class Axis:
    """How tiles lie along one side of the picture, in pixels and in cells of the network's output."""

    side: int
    cells: int
    count: int
    step: int
    """From the begin of one tile to that of the next, in cells."""

    @property
    def _pitch(self) -> float:
        return self.side / self.cells

    @property
    def all_cells(self) -> int:
        return (self.count - 1) * self.step + self.cells

    @property
    def all_pixels(self) -> int:
        return round(self.all_cells * self._pitch)

    def pixels(self, tile: int) -> slice:
        begin = min(round(tile * self.step * self._pitch), self.all_pixels - self.side)
        return slice(begin, begin + self.side)

    def at(self, tile: int) -> slice:
        return slice(tile * self.step, tile * self.step + self.cells)

    @cached_property
    def weights(self) -> F32:
        """f32 [count, cells]: each tile's share; they rise and fall linearly over the overlaps, and add up to 1."""
        overlap = self.cells - self.step
        place = np.arange(self.cells) + 0.5
        shares, total = [], np.zeros(self.all_cells)
        for tile in range(self.count):
            rise = place / overlap if tile and overlap else 1.0
            fall = (self.cells - place) / overlap if tile < self.count - 1 and overlap else 1.0
            shares.append(np.broadcast_to(np.minimum(1.0, np.minimum(rise, fall)), self.cells))
            total[self.at(tile)] += shares[-1]
        return np.stack([share / total[self.at(tile)] for tile, share in enumerate(shares)]).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """One picture size's way through the engine."""

    part: Roi | None
    """What of the source is analysed; None: all of it."""
    across: Axis
    down: Axis

    @property
    def tile(self) -> Size:
        """What the network is given."""
        return self.across.side, self.down.side

    @property
    def tiles(self) -> int:
        return self.across.count * self.down.count

    @property
    def size(self) -> Size:
        """Of the label map."""
        return self.across.all_pixels, self.down.all_pixels

    @property
    def _corners(self) -> list[tuple[int, int]]:
        """(x, y) where each tile begins, row by row."""
        rows, columns = range(self.down.count), range(self.across.count)
        return [(self.across.pixels(x).start, self.down.pixels(y).start) for y in rows for x in columns]

    def covers(self, picture: Picture) -> Roi:
        return self.part or Roi(0, 0, picture.width, picture.height)

    def rgb(self, picture: Picture) -> U8:
        """What is analysed, at the label map's size: u8 [H, W, 3]."""
        return picture.rgb(*self.size, self.part)

    def scale_ahead(self, picture: Picture) -> None:
        """Does the work of `rgb` now, in the calling thread."""
        picture.scale_ahead(*self.size, self.part)

    def cut(self, rgb: U8) -> list[U8]:
        """The tiles of what `rgb` gave, row by row: u8 [h, w, 3] each, contiguous."""
        width, height = self.tile
        return [np.ascontiguousarray(rgb[y : y + height, x : x + width]) for x, y in self._corners]

    def on_gpu(self, surface: Surface) -> list[Resident]:
        """As `cut` of `rgb`, of a picture in GPU memory: nothing is scaled yet."""
        area = self.part or Roi(0, 0, surface.width, surface.height)
        return [Resident(surface, area, self.size, corner) for corner in self._corners]

    def blended(self, scores: Sequence[F32]) -> F32:
        """f32 [K, h, w] of all tiles together, of their scores f32 [K, h, w] in the order of `cut`."""
        out = np.zeros((len(scores[0]), self.down.all_cells, self.across.all_cells), np.float32)
        for number, tile in enumerate(scores):
            y, x = divmod(number, self.across.count)
            weights = self.down.weights[y][:, None] * self.across.weights[x]
            out[:, self.down.at(y), self.across.at(x)] += tile * weights
        return out

    def labels(self, scores: Sequence[F32]) -> U8:
        """The label map u8 [H, W] of all tiles together."""
        return upsample.labels(self.blended(scores), *self.size)


def plan(
    view: View, source: Size, fit: Callable[[int, int], Size], multiple: int, cells: Callable[[Size], Size]
) -> Plan:
    """How a picture of `source` size is analysed. `fit` tells the network's input size for an area of source pixels,
    `multiple` what its sides must be of, and `cells` the (columns, rows) of its output for an input size."""
    part = view.part(*source)
    area = (part.width, part.height) if part else source
    if view.tiling is None or (counts := view.tiling.counts(*area)) == (1, 1):
        across, down = (Axis(side, side, 1, side) for side in fit(*area))  # nothing is blended: any cells do
        return Plan(part, across, down)
    overlap = view.tiling.overlap
    of_tile = [max(1, round(side / (n - (n - 1) * overlap))) for side, n in zip(area, counts, strict=True)]
    tile = fit(of_tile[0], of_tile[1])
    across, down = (
        Axis(side, count, n, _step(side, count, n, overlap, multiple))
        for side, count, n in zip(tile, cells(tile), counts, strict=True)
    )
    return Plan(part, across, down)


def _step(side: int, cells: int, count: int, overlap: float, multiple: int) -> int:
    """In cells, at least the overlap asked for, and a whole `multiple` of pixels: a network that halves its picture
    five times answers differently to one that begins 8 pixels later, and the same to one that begins 32 later."""
    unit = math.lcm(multiple, side // cells) // (side // cells) if side % cells == 0 else 1
    wanted = math.floor(cells * (1 - overlap) / unit + 1e-9) * unit
    return max(1, min(cells, wanted or unit)) if count > 1 else cells
