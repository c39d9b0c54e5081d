"""The temporal part of the engine program, as ONNX nodes: how one frame's probabilities meet those before. Passive.

Every mode takes `probabilities` f32 [N,K,h,w], `state` f32 [N,S,h,w] and `elapsed_s` f32 [N] (negative: forget), and
gives `scores` [N,K,h,w], whose argmax is the label, and `state_next` [N,S,h,w]. Rates are time constants in seconds,
so that a stream behaves alike at 5 and at 25 frames a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

# adaptive, tuned on labelled clips made of CamVid's train and val pictures:
STILL_SECONDS = 4.0
"""Time constant at strength 1 where the picture is still; strength s means s * 4 s."""
CHANGE_LOW, CHANGE_HIGH = 1.0, 4.0
"""Change of luma around a cell (8-bit steps, over the picture's own noise) from which it counts, and counts fully."""
CELL_LOW, CELL_HIGH = 1.5, 6.0
"""Change of the cell's own luma likewise: both must have changed, or what borders on motion would count as moved."""
DOUBT_LOW, DOUBT_HIGH = 0.7, 0.95
"""Distance between the new and the held probabilities (total variation, 0..1) likewise: for what changes no luma."""
MARGIN_NEW, MARGIN, SETTLED_SECONDS = 0.2, 0.55, 1.0
"""A class takes a pixel over when its score exceeds that of the class that holds the pixel by more than this: at once
after a change, and from SETTLED_SECONDS of stillness on."""
PRIOR = 0.45
"""Added to the score of the classes that move (`moves` in engine.yaml) where the picture is not its background."""
PAN_LOW, PAN_HIGH = 0.35, 0.6
"""Share of the picture that is not its background from which the camera is taken for moving: no margin and no prior."""
MATCH, ALIKE, RETURN_SECONDS, LEARN_SECONDS = 0.3, 0.5, 1.0, 2.0
"""The background shows again where the change from it is below MATCH, the network sees nearly what it saw there (total
variation below ALIKE: a grey car on a grey road is no road) and nothing else has been still for RETURN_SECONDS; what
has been still for LEARN_SECONDS is background."""
OLDEST_SECONDS = 4.0
# average:
AVERAGE_SECONDS = 0.5
"""Time constant at strength 1; strength s means s * 0.5 s."""

BT601 = (0.299, 0.587, 0.114)
"""The shares of red, green and blue in luma (ITU-R BT.601)."""

DEFAULT_STRENGTH = {"off": 0.0, "average": 0.1, "adaptive": 0.5}


class Graph:
    """Collects nodes and constants; `add` returns the name of the node's single output."""

    def __init__(self, opset: int, within: str = "program") -> None:
        self._opset = opset
        self._within = within  # begins every name made here
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        name = f"{self._within}/{name}"
        if all(c.name != name for c in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{self._within}/{output}", **attributes))
        return output

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node whose output needs no name of its own."""
        return self.add(op, inputs, f"{self._within}/{op}_{len(self.nodes)}", **attributes)

    def reduce(self, op: str, value: str, *axes: int) -> str:
        """ReduceMax or ReduceMean, keeping the dimensions; their axes became an input in opset 18."""
        if self._opset < 18:
            return self.op(op, value, axes=list(axes), keepdims=1)
        return self.op(op, value, self.constant("axes_" + "".join(map(str, axes)), axes, np.int64), keepdims=1)


def average(g: Graph, strength: float) -> None:
    """Exponential average: s + a (p - s), a = 1 - exp(-elapsed / seconds). The state has the classes' channels."""
    gain = _gain(g, strength * AVERAGE_SECONDS)
    step = g.op("Mul", g.op("Sub", "probabilities", "state"), gain)
    g.add("Add", ["state", step], "state_next")
    g.add("Identity", ["state_next"], "scores")


@dataclass(frozen=True, slots=True)
class _Memory:
    """Names of the tensors that one memory is made of: `values` [N,K+3,h,w], and its parts: averaged probabilities
    [N,K,h,w]; and [N,1,h,w] each: the label that holds the pixel, the luma, and for how many seconds it was still."""

    values: str
    probabilities: str
    label: str
    luma: str
    still_s: str


@dataclass(frozen=True, slots=True)
class Look:
    """How the network sees: pixels of the picture to one of `logits` (down, across; not always whole: 513 / 65), and
    the RGB in 0..1 that is normalised to 0 and the deviation that is to 1."""

    strides: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def winner_channel(classes: int, channels: int) -> int | None:
    """The channel of a state of so many channels that tells which class of `scores` is the largest, the first of
    equals; None where the mode keeps no such one."""
    return classes if channels == 2 * (classes + 3) else None


def adaptive(g: Graph, strength: float, classes: int, look: Look, moves: Sequence[int]) -> int:
    """Motion-adaptive average with hysteresis and a background to return to. Returns the state's channels.

    The state is two memories (`_Memory`): the present, and the background. Where luma differs from the present's (after
    taking out the exposure, and beyond the picture's own noise), or where the network insists on something else, the
    present follows at once, luma and all; elsewhere it averages, first as a plain mean (gain 1/n, or one noisy frame
    would weigh for seconds). What was still for LEARN_SECONDS becomes the background, and where the background shows
    again, its memory is taken up again: what was covered for a moment needs not be learned anew, and leaves no trail.
    Where the background is covered, classes that move (ids in `moves`) are the likelier ones.
    """
    one, zero = g.constant("one", 1.0), g.constant("zero", 0.0)
    reset = _column(g, g.op("Less", "elapsed_s", zero))
    elapsed = _column(g, g.op("Max", "elapsed_s", g.constant("instant", 1e-3)))
    halves = g.constant("state_split", [classes + 3, classes + 3], np.int64)
    g.nodes.append(helper.make_node("Split", ["state", halves], ["program/present", "program/background"], axis=1))
    present, background = (_memory(g, name, classes) for name in ("program/present", "program/background"))

    luma = _luma(g, look)
    _, _, change, expected = _compared(g, present, luma)
    covered, apart, change_back, expected_back = _compared(g, background, luma)

    still = g.op("Mul", present.still_s, g.op("Sub", one, change))
    returned = g.op("Less", change_back, g.constant("match", MATCH))
    returned = g.op("And", returned, g.op("Less", apart, g.constant("alike", ALIKE)))
    returned = g.op("And", returned, g.op("Less", still, g.constant("return", RETURN_SECONDS)))
    returned = g.op("And", returned, g.op("Less", still, background.still_s))
    label = g.op("Where", returned, background.label, present.label)
    still = g.op("Where", returned, background.still_s, present.still_s)
    expected = g.op("Where", returned, expected_back, expected)
    change = g.op("Where", reset, one, g.op("Where", returned, change_back, change))

    still = g.op("Mul", still, g.op("Sub", one, change))
    young = g.op("Div", elapsed, g.op("Add", still, elapsed))
    slow = g.op("Max", _gain(g, strength * STILL_SECONDS), young)
    gain = g.op("Add", slow, g.op("Mul", g.op("Sub", one, slow), change))
    # What was before is either memory's: as a sum of products it is fused, as a Where it would be stored.
    rest = g.op("Sub", one, gain)
    again = g.op("Mul", g.op("Cast", returned, to=1), rest)
    shares = (
        (gain, "probabilities"),
        (g.op("Sub", rest, again), present.probabilities),
        (again, background.probabilities),
    )
    new, *old = (g.op("Mul", _deeper(g, share), _deeper(g, values)) for share, values in shares)
    averaged = g.op("Add", new, g.op("Add", *old))
    followed = g.op("Add", expected, g.op("Mul", gain, g.op("Sub", luma, expected)))
    aged = g.op("Min", g.op("Add", still, elapsed), g.constant("oldest", OLDEST_SECONDS))

    calm = g.op("Sub", one, _ramp(g, g.reduce("ReduceMean", covered, 2, 3), PAN_LOW, PAN_HIGH))
    numbers = g.constant("numbers", np.arange(classes).reshape(1, -1, 1, 1))
    held = g.op("Cast", g.op("Equal", _deeper(g, label), _deeper(g, numbers)), to=1)
    settled = g.op("Min", g.op("Mul", aged, g.constant("per_settled", 1 / SETTLED_SECONDS)), one)
    margin = g.op("Mul", settled, g.constant("margin_rise", MARGIN - MARGIN_NEW))
    margin = g.op("Mul", g.op("Add", margin, g.constant("margin_new", MARGIN_NEW)), calm)
    margin = g.op("Where", reset, zero, margin)
    scores = g.op("Add", averaged, g.op("Mul", held, _deeper(g, margin)))
    if moves:
        prior = np.zeros((1, 1, classes, 1, 1))
        prior[:, :, list(moves)] = PRIOR
        moving = g.op("Mul", g.op("Where", reset, zero, covered), calm)
        scores = g.op("Add", scores, g.op("Mul", _deeper(g, moving), g.constant("prior", prior)))
    depth = g.constant("axis1", [1], np.int64)
    g.add("Squeeze", [scores, depth], "scores")
    wins = g.op("GreaterOrEqual", "scores", g.reduce("ReduceMax", "scores", 1))
    winner = g.reduce("ReduceMin", g.op("Where", wins, numbers, g.constant("none", float(classes))), 1)

    now = g.op("Concat", g.op("Squeeze", averaged, depth), winner, followed, aged, axis=1)
    lasting = g.op("Min", background.still_s, g.constant("learn", LEARN_SECONDS))
    learned = g.op("GreaterOrEqual", aged, g.op("Where", reset, zero, lasting))
    g.add("Concat", [now, g.op("Where", learned, now, background.values)], "state_next", axis=1)
    return 2 * (classes + 3)


def _deeper(g: Graph, value: str) -> str:
    """[N,C,h,w] as [N,1,C,h,w]: OpenVINO would lay out what has many channels in blocks of 16, at the cost of more than
    all that is done to it here."""
    return g.op("Unsqueeze", value, g.constant("axis1", [1], np.int64))


def _memory(g: Graph, values: str, classes: int) -> _Memory:
    parts = [f"{values}_{part}" for part in ("probabilities", "label", "luma", "still_s")]
    sizes = g.constant("memory_split", [classes, 1, 1, 1], np.int64)
    g.nodes.append(helper.make_node("Split", [values, sizes], parts, axis=1))
    return _Memory(values, *parts)


def _compared(g: Graph, memory: _Memory, luma: str) -> tuple[str, str, str, str]:
    """[N,1,h,w] each: how far luma differs from the memory (0..1); how far apart the probabilities are (total
    variation); the change that both amount to (0..1); and the luma that the memory lets expect."""
    expected = g.op("Mul", memory.luma, _exposure(g, luma, memory.luma))
    moved = _moved(g, luma, expected)
    distance = g.op("Abs", g.op("Sub", "probabilities", memory.probabilities))
    apart = g.op("Mul", g.op("ReduceSum", distance, g.constant("axis1", [1], np.int64)), g.constant("half", 0.5))
    return moved, apart, g.op("Max", moved, _ramp(g, apart, DOUBT_LOW, DOUBT_HIGH)), expected


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


def _luma(g: Graph, look: Look) -> str:
    """[N,1,h,w] in 8-bit steps: the mean over each cell of `strides` (down, across) pixels. ITU-R BT.601 weights."""
    down, across = look.strides
    whole = down == int(down) and across == int(across)
    return _luma_of_cells(g, look, int(down), int(across)) if whole else _luma_of_any(g, look.strides)


def _luma_of_any(g: Graph, strides: tuple[float, float]) -> str:
    """For cells that are not whole pixels (third-party networks): means over the nearest whole ones, then resized."""
    weighed = g.op("Mul", g.op("Cast", "frames", to=1), g.constant("bt601", BT601))
    luma = g.op("ReduceSum", weighed, g.constant("axis3", [3], np.int64), keepdims=0)
    luma = g.op("Unsqueeze", luma, g.constant("axis1", [1], np.int64))
    cell = [max(1, int(stride)) for stride in strides]
    luma = g.op("AveragePool", luma, kernel_shape=cell, strides=cell)
    size = g.op("Concat", g.op("Shape", luma, start=0, end=2), g.op("Shape", "probabilities", start=2, end=4), axis=0)
    return g.op("Resize", luma, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")


def _luma_of_cells(g: Graph, look: Look, down: int, across: int) -> str:
    """The same for cells of whole pixels: a convolution of the normalised picture, the pixels of a cell's row being
    channels. 0.14 ms at 480x272 in OpenVINO bf16, where an AveragePool of three planes takes 0.7 ms and as much again
    to lay them out for it."""
    of_rgb = 255 * np.asarray(BT601)
    weights = np.tile(of_rgb * look.std / (down * across), across)
    shape = g.constant("cells", [0, 0, -1, 3 * across], np.int64)
    cells = g.op("Transpose", g.op("Reshape", "program/normalised", shape), perm=[0, 3, 1, 2])
    kernel = g.constant("luma", np.broadcast_to(weights.reshape(1, -1, 1, 1), (1, 3 * across, down, 1)))
    black = g.constant("luma_of_zero", [of_rgb @ look.mean])
    return g.op("Conv", cells, kernel, black, strides=[down, 1])


def _exposure(g: Graph, luma: str, held: str) -> str:
    """[N,1,1,1]: how much brighter the whole picture is than the one that is held."""
    before = g.op("Max", g.reduce("ReduceMean", held, 2, 3), g.constant("one", 1.0))
    return g.op("Div", g.reduce("ReduceMean", luma, 2, 3), before)


def _moved(g: Graph, luma: str, expected: str) -> str:
    """[N,1,h,w] in 0..1: the change of luma, in the cell and in 3x3 cells, against thresholds that rise with noise."""
    change = g.op("Abs", g.op("Sub", luma, expected))
    local = _mean_of_three(g, _mean_of_three(g, change, 2), 3)
    near = _ramp(g, _over_noise(g, local), CHANGE_LOW, CHANGE_HIGH)
    return g.op("Min", near, _ramp(g, _over_noise(g, change), CELL_LOW, CELL_HIGH))


def _mean_of_three(g: Graph, value: str, axis: int) -> str:
    """The mean with both neighbours along `axis` (2 or 3), the edge repeated. Slices are cheap where an AveragePool of
    one channel is not (OpenVINO: 0.01 ms against 0.05 for 3x3 cells of 120x68)."""
    at = g.constant(f"axis{axis}", [axis], np.int64)
    around = [int(i % 4 == axis) for i in range(8)]
    padded = g.op("Pad", value, g.constant(f"around{axis}", around, np.int64), mode="edge")
    bounds = ((0, -2), (1, -1), (2, 2**31 - 1))
    before, here, after = (
        g.op("Slice", padded, *(g.constant(f"at{n}", [n], np.int64) for n in bound), at) for bound in bounds
    )
    return g.op("Mul", g.op("Add", g.op("Add", before, here), after), g.constant("third", 1 / 3))


def _over_noise(g: Graph, change: str) -> str:
    """What exceeds the picture's mean change; clipped first, so that what really moves does not count as noise."""
    clipped = g.op("Min", change, g.constant("noise_limit", 4 * CHANGE_LOW))
    return g.op("Sub", change, g.reduce("ReduceMean", clipped, 2, 3))


def _ramp(g: Graph, value: str, low: float, high: float) -> str:
    """0 up to `low`, 1 from `high` on, straight in between."""
    risen = g.op("Sub", value, g.constant(f"low_{low:g}", low))
    scaled = g.op("Mul", risen, g.constant(f"per_{high - low:g}", 1 / (high - low)))
    return g.op("Clip", scaled, g.constant("zero", 0.0), g.constant("one", 1.0))
