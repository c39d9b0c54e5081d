"""The temporal part of the engine program, as ONNX nodes: how one frame's probabilities meet those before. Passive.

Every mode takes `probabilities` f32 [N,K,h,w], `state` f32 [N,S,h,w] and `elapsed_s` f32 [N] (negative: forget), and
gives `scores` [N,K,h,w], whose argmax is the label, and `state_next` [N,S,h,w]. Rates are time constants in seconds,
so that a stream behaves alike at 5 and at 25 frames a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamseg.engine.graph import Graph, Tensor

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


def average(g: Graph, strength: float) -> None:
    """Exponential average: s + a (p - s), a = 1 - exp(-elapsed / seconds). The state has the classes' channels."""
    probabilities, state = Tensor(g, "probabilities"), Tensor(g, "state")
    gain = _gain(g, strength * AVERAGE_SECONDS)
    g.add("Add", ["state", ((probabilities - state) * gain).name], "state_next")
    g.add("Identity", ["state_next"], "scores")


@dataclass(frozen=True, slots=True)
class _Memory:
    """`values` [N,K+3,h,w], and its parts: averaged probabilities [N,K,h,w]; and [N,1,h,w] each: the label that holds
    the pixel, the luma, and for how many seconds it was still."""

    values: Tensor
    probabilities: Tensor
    label: Tensor
    luma: Tensor
    still_s: Tensor


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
    elapsed_s = Tensor(g, "elapsed_s")
    reset = _column(elapsed_s < 0.0)
    elapsed = _column(elapsed_s.at_least(1e-3))
    halves = g.split("state", [classes + 3, classes + 3], ["program/present", "program/background"])
    present, background = (_memory(values, classes) for values in halves)

    luma = _luma(g, look)
    _, _, change, expected = _compared(present, luma)
    covered, apart, change_back, expected_back = _compared(background, luma)

    still = present.still_s * (1.0 - change)
    returned = (change_back < MATCH) & (apart < ALIKE) & (still < RETURN_SECONDS) & (still < background.still_s)
    label = returned.where(background.label, present.label)
    still = returned.where(background.still_s, present.still_s)
    expected = returned.where(expected_back, expected)
    change = reset.where(1.0, returned.where(change_back, change))

    still = still * (1.0 - change)
    young = elapsed / (still + elapsed)
    slow = _gain(g, strength * STILL_SECONDS).at_least(young)
    gain = slow + (1.0 - slow) * change
    # What was before is either memory's: as a sum of products it is fused, as a Where it would be stored. And `deeper`,
    # as OpenVINO would lay out what has many channels in blocks of 16, at the cost of more than all that is done here.
    rest = 1.0 - gain
    again = returned.op("Cast", to=1) * rest
    kept = rest - again
    new = gain.deeper() * Tensor(g, "probabilities").deeper()
    old = kept.deeper() * present.probabilities.deeper()
    averaged = new + (old + again.deeper() * background.probabilities.deeper())
    followed = expected + gain * (luma - expected)
    aged = (still + elapsed).at_most(OLDEST_SECONDS)

    calm = 1.0 - _ramp(covered.reduce("ReduceMean", 2, 3), PAN_LOW, PAN_HIGH)
    numbers = Tensor(g, g.constant("numbers", np.arange(classes).reshape(1, -1, 1, 1)))
    held = label.deeper().op("Equal", numbers.deeper()).op("Cast", to=1)
    settled = (aged * (1 / SETTLED_SECONDS)).at_most(1.0)
    margin = reset.where(0.0, (settled * (MARGIN - MARGIN_NEW) + MARGIN_NEW) * calm)
    scores = averaged + held * margin.deeper()
    if moves:
        prior = np.zeros((1, 1, classes, 1, 1))
        prior[:, :, list(moves)] = PRIOR
        moving = reset.where(0.0, covered) * calm
        scores = scores + moving.deeper() * g.constant("prior", prior)
    scores = Tensor(g, g.add("Squeeze", [scores.name, g.axes(1)], "scores"))
    winner = (scores >= scores.reduce("ReduceMax", 1)).where(numbers, float(classes)).reduce("ReduceMin", 1)

    now = averaged.op("Squeeze", g.axes(1)).op("Concat", winner, followed, aged, axis=1)
    learned = aged >= reset.where(0.0, background.still_s.at_most(LEARN_SECONDS))
    g.add("Concat", [now.name, learned.where(now, background.values).name], "state_next", axis=1)
    return 2 * (classes + 3)


def _memory(values: Tensor, classes: int) -> _Memory:
    names = [f"{values.name}_{part}" for part in ("probabilities", "label", "luma", "still_s")]
    return _Memory(values, *values.graph.split(values.name, [classes, 1, 1, 1], names))


def _compared(memory: _Memory, luma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[N,1,h,w] each: how far luma differs from the memory (0..1); how far apart the probabilities are (total
    variation); the change that both amount to (0..1); and the luma that the memory lets expect."""
    expected = memory.luma * _exposure(luma, memory.luma)
    moved = _moved(luma, expected)
    distance = (Tensor(luma.graph, "probabilities") - memory.probabilities).op("Abs")
    apart = distance.op("ReduceSum", luma.graph.axes(1)) * 0.5
    return moved, apart, moved.at_least(_ramp(apart, DOUBT_LOW, DOUBT_HIGH)), expected


def _column(value: Tensor) -> Tensor:
    """[N] as [N,1,1,1]."""
    return value.op("Reshape", value.graph.constant("column", [-1, 1, 1, 1], np.int64))


def _gain(g: Graph, seconds: float) -> Tensor:
    """[N,1,1,1]: 1 - exp(-elapsed / seconds), and 1 at a reset."""
    elapsed_s = Tensor(g, "elapsed_s")
    # Clipped at 0, so that a negative elapsed time (a reset) cannot overflow exp before Where discards it.
    running = 1.0 - (elapsed_s * (-1.0 / seconds)).at_most(0.0).op("Exp")
    return _column((elapsed_s < 0.0).where(1.0, running))


def _luma(g: Graph, look: Look) -> Tensor:
    """[N,1,h,w] in 8-bit steps: the mean over each cell of `strides` (down, across) pixels. ITU-R BT.601 weights."""
    down, across = look.strides
    whole = down == int(down) and across == int(across)
    return _luma_of_cells(g, look, int(down), int(across)) if whole else _luma_of_any(g, look.strides)


def _luma_of_any(g: Graph, strides: tuple[float, float]) -> Tensor:
    """For cells that are not whole pixels (third-party networks): means over the nearest whole ones, then resized."""
    weighed = Tensor(g, "frames").op("Cast", to=1) * g.constant("bt601", BT601)
    luma = weighed.op("ReduceSum", g.axes(3), keepdims=0).deeper()
    cell = [max(1, int(stride)) for stride in strides]
    luma = luma.op("AveragePool", kernel_shape=cell, strides=cell)
    size = luma.op("Shape", start=0, end=2).op("Concat", g.op("Shape", "probabilities", start=2, end=4), axis=0)
    return luma.op("Resize", "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")


def _luma_of_cells(g: Graph, look: Look, down: int, across: int) -> Tensor:
    """The same for cells of whole pixels: a convolution of the normalised picture, the pixels of a cell's row being
    channels. 0.14 ms at 480x272 in OpenVINO bf16, where an AveragePool of three planes takes 0.7 ms and as much again
    to lay them out for it."""
    of_rgb = 255 * np.asarray(BT601)
    weights = np.tile(of_rgb * look.std / (down * across), across)
    shape = g.constant("cells", [0, 0, -1, 3 * across], np.int64)
    cells = Tensor(g, "program/normalised").op("Reshape", shape).op("Transpose", perm=[0, 3, 1, 2])
    kernel = g.constant("luma", np.broadcast_to(weights.reshape(1, -1, 1, 1), (1, 3 * across, down, 1)))
    black = g.constant("luma_of_zero", [of_rgb @ look.mean])
    return cells.op("Conv", kernel, black, strides=[down, 1])


def _exposure(luma: Tensor, held: Tensor) -> Tensor:
    """[N,1,1,1]: how much brighter the whole picture is than the one that is held."""
    before = held.reduce("ReduceMean", 2, 3).at_least(1.0)
    return luma.reduce("ReduceMean", 2, 3) / before


def _moved(luma: Tensor, expected: Tensor) -> Tensor:
    """[N,1,h,w] in 0..1: the change of luma, in the cell and in 3x3 cells, against thresholds that rise with noise."""
    change = (luma - expected).op("Abs")
    local = _mean_of_three(_mean_of_three(change, 2), 3)
    near = _ramp(_over_noise(local), CHANGE_LOW, CHANGE_HIGH)
    return near.at_most(_ramp(_over_noise(change), CELL_LOW, CELL_HIGH))


def _mean_of_three(value: Tensor, axis: int) -> Tensor:
    """The mean with both neighbours along `axis` (2 or 3), the edge repeated. Slices are cheap where an AveragePool of
    one channel is not (OpenVINO: 0.01 ms against 0.05 for 3x3 cells of 120x68)."""
    g = value.graph
    around = g.constant(f"around{axis}", [int(i % 4 == axis) for i in range(8)], np.int64)
    padded = value.op("Pad", around, mode="edge")
    bounds = ((0, -2), (1, -1), (2, 2**31 - 1))
    before, here, after = (
        padded.op("Slice", *(g.constant(f"at{n}", [n], np.int64) for n in bound), g.axes(axis)) for bound in bounds
    )
    return (before + here + after) * (1 / 3)


def _over_noise(change: Tensor) -> Tensor:
    """What exceeds the picture's mean change; clipped first, so that what really moves does not count as noise."""
    return change - change.at_most(4 * CHANGE_LOW).reduce("ReduceMean", 2, 3)


def _ramp(value: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, straight in between."""
    return ((value - low) * (1 / (high - low))).op("Clip", 0.0, 1.0)
