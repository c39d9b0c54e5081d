"""The temporal part of the engine program, as ONNX nodes: how one frame's probabilities meet those before. Passive.

Every mode takes `probabilities` f32 [N,K,h,w], `state` f32 [N,S,h,w] and `elapsed_s` f32 [N] (negative: forget), and
gives `scores` [N,K,h,w], whose argmax is the label, and `state_next` [N,S,h,w]. Rates are time constants in seconds,
so that a stream behaves alike at 5 and at 25 frames a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

# adaptive, tuned on labelled clips made of CamVid's train and val pictures:
STILL_SECONDS = 4.0
"""Time constant at strength 1 where the picture is still; strength s means s * 4 s."""
CHANGE_LOW, CHANGE_HIGH = 1.0, 4.0
"""Local change of luma (8-bit steps, over the picture's own mean change) from which it counts, and counts fully."""
DOUBT_LOW, DOUBT_HIGH = 0.5, 0.8
"""Distance between the new and the held probabilities (total variation, 0..1) likewise: for what changes no luma."""
MARGIN = 0.25
"""A class takes a pixel over when its score exceeds that of the class that holds the pixel by more than this."""
# average:
AVERAGE_SECONDS = 0.5
"""Time constant at strength 1; strength s means s * 0.5 s."""

DEFAULT_STRENGTH = {"off": 0.0, "average": 0.1, "adaptive": 0.5}


class Graph:
    """Collects nodes and constants; `add` returns the name of the node's single output."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        name = f"program/{name}"
        if all(c.name != name for c in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"program/{output}", **attributes))
        return output

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node whose output needs no name of its own."""
        return self.add(op, inputs, f"program/{op}_{len(self.nodes)}", **attributes)

    def reduce(self, op: str, value: str, *axes: int) -> str:
        """ReduceMax or ReduceMean, keeping the dimensions; their axes became an input in opset 18."""
        if self._opset < 18:
            return self.op(op, value, axes=list(axes), keepdims=1)
        return self.op(op, value, self.constant("axes_" + "".join(map(str, axes)), axes, np.int64), keepdims=1)


def average(g: Graph, strength: float) -> int:
    """Exponential average: s + a (p - s), a = 1 - exp(-elapsed / seconds). Returns S = K as 0 extra channels."""
    gain = _gain(g, strength * AVERAGE_SECONDS)
    step = g.op("Mul", g.op("Sub", "probabilities", "state"), gain)
    g.add("Add", ["state", step], "state_next")
    g.add("Identity", ["state_next"], "scores")
    return 0


def adaptive(g: Graph, strength: float, classes: int, stride: int) -> int:
    """Motion-adaptive average with hysteresis. Returns 1, the state's channels beyond K.

    The state holds the averaged probabilities, with 1 added to the class that holds the pixel, and the luma that they
    were averaged over. Where luma differs from it (after taking out the exposure, and beyond the picture's own noise),
    or where the network insists on something else, the average follows at once, luma reference and all.
    """
    one, zero = g.constant("one", 1.0), g.constant("zero", 0.0)
    reset = _column(g, g.op("Less", "elapsed_s", zero))
    sizes = g.constant("state_split", [classes, 1], np.int64)
    g.nodes.append(helper.make_node("Split", ["state", sizes], ["program/marked", "program/luma_held"], axis=1))
    winner = g.reduce("ReduceMax", "program/marked", 1)
    held = g.op("Cast", g.op("GreaterOrEqual", "program/marked", winner), to=1)
    before = g.op("Sub", "program/marked", held)

    luma = _luma(g, stride)
    expected = g.op("Mul", "program/luma_held", _exposure(g, luma))
    moved = _moved(g, luma, expected)
    apart = g.op("ReduceSum", g.op("Abs", g.op("Sub", "probabilities", before)), g.constant("axis1", [1], np.int64))
    insists = _ramp(g, g.op("Mul", apart, g.constant("half", 0.5)), DOUBT_LOW, DOUBT_HIGH)
    change = g.op("Where", reset, one, g.op("Max", moved, insists))

    slow = _gain(g, strength * STILL_SECONDS)
    gain = g.op("Add", slow, g.op("Mul", g.op("Sub", one, slow), change))
    averaged = g.op("Add", before, g.op("Mul", gain, g.op("Sub", "probabilities", before)))
    followed = g.op("Add", expected, g.op("Mul", gain, g.op("Sub", luma, expected)))
    margin = g.op("Where", reset, zero, g.constant("margin", MARGIN))
    g.add("Add", [averaged, g.op("Mul", held, margin)], "scores")
    best = g.reduce("ReduceMax", "scores", 1)
    holds = g.op("Cast", g.op("GreaterOrEqual", "scores", best), to=1)
    g.add("Concat", [g.op("Add", averaged, holds), followed], "state_next", axis=1)
    return 1


def _column(g: Graph, value: str) -> str:
    """[N] as [N,1,1,1]."""
    return g.op("Reshape", value, g.constant("column", [-1, 1, 1, 1], np.int64))


def _gain(g: Graph, seconds: float) -> str:
    """[N,1,1,1]: 1 - exp(-elapsed / seconds), and 1 at a reset."""
    zero, one = g.constant("zero", 0.0), g.constant("one", 1.0)
    # Clipped at 0, so that a negative elapsed time (a reset) cannot overflow exp before Where discards it.
    exponent = g.op("Min", g.op("Mul", "elapsed_s", g.constant(f"rate_{seconds:g}", -1.0 / seconds)), zero)
    running = g.op("Sub", one, g.op("Exp", exponent))
    return _column(g, g.op("Where", g.op("Less", "elapsed_s", zero), one, running))


def _luma(g: Graph, stride: int) -> str:
    """[N,1,h,w] in 8-bit steps: the mean over each cell of `stride` x `stride` pixels. ITU-R BT.601 weights.

    Rows are added before anything is multiplied, on the interleaved picture: 0.18 ms at 480x272 in OpenVINO, where an
    AveragePool of three planes takes 0.7 ms and as much again to lay them out for it.
    """
    size = g.op("Shape", "frames", start=0, end=3)
    batch, height, width = (
        g.op("Slice", size, *(g.constant(f"at{n}", [n], np.int64) for n in (i, i + 1))) for i in range(3)
    )
    side = g.constant("side", [stride], np.int64)
    rows, columns = g.op("Div", height, side), g.op("Div", width, side)
    values = g.op("Mul", width, g.constant("at3", [3], np.int64))
    stacked = g.op("Reshape", "frames", g.op("Concat", batch, rows, side, values, axis=0))
    parts = [f"program/row{i}" for i in range(stride)]
    ones = g.constant("row_split", [1] * stride, np.int64)
    g.nodes.append(helper.make_node("Split", [stacked, ones], parts, axis=2))
    total = g.op("Cast", parts[0], to=1)
    for part in parts[1:]:
        total = g.op("Add", total, g.op("Cast", part, to=1))
    weights = g.constant("luma", np.tile(np.array([0.299, 0.587, 0.114]) / stride**2, stride))
    cells = g.op(
        "Reshape", total, g.op("Concat", batch, rows, columns, g.constant("cell", [3 * stride], np.int64), axis=0)
    )
    luma = g.op("ReduceSum", g.op("Mul", cells, weights), g.constant("axis3", [3], np.int64), keepdims=0)
    return g.op("Unsqueeze", luma, g.constant("axis1", [1], np.int64))


def _exposure(g: Graph, luma: str) -> str:
    """[N,1,1,1]: how much brighter the whole picture is than the reference."""
    now = g.reduce("ReduceMean", luma, 2, 3)
    held = g.reduce("ReduceMean", "program/luma_held", 2, 3)
    return g.op("Div", now, g.op("Max", held, g.constant("one", 1.0)))


def _moved(g: Graph, luma: str, expected: str) -> str:
    """[N,1,h,w] in 0..1: the change of luma over 3x3 cells against the threshold, which rises with the noise."""
    change = g.op("Abs", g.op("Sub", luma, expected))
    local = g.op("AveragePool", change, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    # Clipped, so that what really moves does not count as noise.
    clipped = g.op("Min", local, g.constant("noise_limit", 4 * CHANGE_LOW))
    noise = g.reduce("ReduceMean", clipped, 2, 3)
    return _ramp(g, g.op("Sub", local, noise), CHANGE_LOW, CHANGE_HIGH)


def _ramp(g: Graph, value: str, low: float, high: float) -> str:
    """0 up to `low`, 1 from `high` on, straight in between."""
    risen = g.op("Sub", value, g.constant(f"low_{low:g}", low))
    scaled = g.op("Mul", risen, g.constant(f"per_{high - low:g}", 1 / (high - low)))
    return g.op("Clip", scaled, g.constant("zero", 0.0), g.constant("one", 1.0))
