"""The output side of an imported model: the graph from the model's own tensor to `logits` f32 [N,K,h,w]. Passive."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from onnx import TensorProto

from streamseg.engine.graph import Graph

Kind = Literal["logits", "probabilities", "labels", "foreground", "foreground-probability"]
STRIDE = 4
"""Of the scores that are smoothed, where the model's own are coarser and were upsampled in it."""
CERTAIN = 12.0
"""The logit of a label's class over the others: e^-12 is 6e-6."""


@dataclass(frozen=True, slots=True)
class Tail:
    """`tensor` [1, …] is what the program goes on with. `axis` is that of its classes, None where it has none (a map);
    `aligned` how it must be resampled to cells of the picture, None where it need not."""

    tensor: str
    kind: Kind
    classes: int
    axis: int | None
    rank: int
    swapped: bool = False
    """Whether its columns come before its rows."""
    aligned: str | None = None
    within: tuple[int, int] | None = None
    """(H, W) of the only picture that the model takes, when smaller ones are padded to it."""
    bounded: bool = False
    """Whether the model's own answer of one foreground is between 0 and `full`."""
    full: float = 1.0
    flat: tuple[int, int] | None = None
    """(h, w) of its own answer, where that is a list of pixels."""
    steps: tuple[str, ...] = ()

    def add(self, g: Graph) -> None:
        """From the model's tensor to `logits` f32 [N,K,h,w]."""
        x = g.op("Cast", self.tensor, to=TensorProto.FLOAT)
        x = self._planes(g, x)
        if self.aligned is not None:
            x = _resampled(g, x, self.aligned, self.within)
        elif self.within is not None:
            x = _cropped(g, x, self.within)
        if self.kind == "foreground-probability" and self.full != 1:
            x = g.op("Mul", x, g.constant("share", 1 / self.full))
        if self.kind == "probabilities":
            x = g.op("Log", g.op("Max", x, g.constant("least", 1e-7)))
        elif self.kind == "labels":
            ids = g.constant("ids", np.arange(self.classes).reshape(1, -1, 1, 1))
            # A label that comes from a resized map may be off by a rounding error.
            near = g.op("Less", g.op("Abs", g.op("Sub", x, ids)), g.constant("half", 0.5))
            x = g.op("Mul", g.op("Cast", near, to=TensorProto.FLOAT), g.constant("certain", CERTAIN))
        elif self.kind == "foreground":
            x = g.op("Concat", g.op("Mul", x, g.constant("nought", 0.0)), x, axis=1)
        elif self.kind == "foreground-probability":
            both = g.op("Concat", g.op("Sub", g.constant("unity", 1.0), x), x, axis=1)
            x = g.op("Log", g.op("Max", both, g.constant("least", 1e-7)))
        g.add("Identity", [x], "logits")

    def _planes(self, g: Graph, x: str) -> str:
        """[N,C,h,w] of whatever order and number of dimensions."""
        axis = self.axis
        if self.rank < 4:
            missing = [0] if self.rank == 3 and axis is not None else [1] if self.rank == 3 else [0, 1]
            if axis is not None:
                axis += 1
            x = g.op("Unsqueeze", x, g.constant("missing", missing, np.int64))
        perm = [0, axis or 1, *rows_and_columns(axis or 1, self.swapped)]
        return x if perm == [0, 1, 2, 3] else g.op("Transpose", x, perm=perm)


def extent(shape: tuple[int, ...], axis: int | None, swapped: bool = False) -> tuple[int, int]:
    """(h, w) of scores whose classes are dimension `axis`, or of a map."""
    h, w = [n for i, n in enumerate(shape) if i != axis][-2:]
    return (w, h) if swapped else (h, w)


def rows_and_columns(axis: int, swapped: bool) -> tuple[int, int]:
    """The dimensions, of four, that are rows and columns where the classes are dimension `axis`."""
    first, second = (dim for dim in (1, 2, 3) if dim != axis)
    return (second, first) if swapped else (first, second)


def padded(tail: Tail, shape: tuple[int, ...], within: tuple[int, int]) -> tuple[Tail, int] | None:
    """(the same for pictures that are padded to `within` (H, W), the multiple that their sizes must be of); None where
    the picture's part cannot be told. `shape`: of the tensor for a whole picture."""
    if tail.aligned is None:
        rows, columns = extent(shape, tail.axis, tail.swapped)
        stride = within[0] // rows
        if (rows * stride, columns * stride) == within and math.lcm(8, stride) <= 64:
            return replace(tail, within=within), math.lcm(8, stride)
        if tail.kind not in ("logits", "probabilities"):
            return None  # labels cannot be resampled
        tail = replace(tail, aligned="half_pixel")
    return replace(tail, within=within), math.lcm(8, STRIDE)


def _cropped(g: Graph, x: str, within: tuple[int, int]) -> str:
    """The part of [N,K,h,w] that is of the picture, where one sample stands for a whole number of pixels."""
    for dim, full in ((2, within[0]), (3, within[1])):
        axis = g.constant(f"dimension{dim}", [dim], np.int64)
        stride = g.op("Div", g.constant(f"full{dim}", [full], np.int64), g.op("Shape", x, start=dim, end=dim + 1))
        end = g.op("Div", g.op("Shape", "image", start=dim, end=dim + 1), stride)
        x = g.op("Slice", x, g.constant("begin", [0], np.int64), end, axis)
    return x


def _resampled(g: Graph, x: str, how: str, within: tuple[int, int] | None) -> str:
    """[N,K,h,w] whose samples lie as `how` says -> [N,K,H/4,W/4] in the middle of the program's cells: two products
    with the weights of linear interpolation, which any backend folds into constants."""
    for dim, flip in ((3, True), (2, False)):
        picture = g.op("Shape", "image", start=dim, end=dim + 1)
        cells = g.op("Div", picture, g.constant("stride", [STRIDE], np.int64))
        samples = g.op("Shape", x, start=dim, end=dim + 1)
        n_pixels, n_cells, n_samples = (g.op("Cast", n, to=TensorProto.FLOAT) for n in (picture, cells, samples))
        half, unit = g.constant("half", 0.5), g.constant("unity", 1.0)
        # The middle of each cell, in pixels from the middle of the first pixel.
        at = g.op("Mul", g.op("Add", _counted(g, cells), half), g.op("Div", n_pixels, n_cells))
        if within is not None:
            n_pixels = g.constant(f"pixels{dim}", [within[dim - 2]])
        if how == "align_corners":
            scale = g.op("Div", g.op("Sub", n_samples, unit), g.op("Sub", n_pixels, unit))
            at = g.op("Mul", g.op("Sub", at, half), scale)
        elif how == "asymmetric":
            at = g.op("Mul", g.op("Sub", at, half), g.op("Div", n_samples, n_pixels))
        else:
            at = g.op("Sub", g.op("Mul", at, g.op("Div", n_samples, n_pixels)), half)
        at = g.op("Min", g.op("Max", at, g.constant("nought", 0.0)), g.op("Sub", n_samples, unit))
        place = g.op("Unsqueeze", at, g.constant("axis_in" if flip else "axis_out", [0 if flip else 1], np.int64))
        sample = g.op(
            "Unsqueeze",
            _counted(g, samples),
            g.constant("axis_out" if flip else "axis_in", [1 if flip else 0], np.int64),
        )
        apart = g.op("Abs", g.op("Sub", place, sample))
        weights = g.op("Relu", g.op("Sub", unit, apart))
        x = g.op("MatMul", x, weights) if flip else g.op("MatMul", weights, x)
    return x


def _counted(g: Graph, length: str) -> str:
    """f32 [n]: 0, 1, 2, …"""
    scalar = g.op("Squeeze", length)
    numbers = g.op("Range", g.constant("zero64", 0, np.int64), scalar, g.constant("one64", 1, np.int64))
    return g.op("Cast", numbers, to=TensorProto.FLOAT)
