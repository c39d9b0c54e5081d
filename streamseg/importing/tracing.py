"""Which tensor of a model its segmentation is best taken from, and what that is made of. Passive.

An answer is followed back through what loses something or only costs time: argmax, softmax, the last upsampling (the
program upsamples itself, after smoothing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.errors import EngineError
from streamseg.importing import scaling
from streamseg.importing.reading import shown
from streamseg.importing.tails import STRIDE, Kind, Tail, extent, rows_and_columns

Probe = Callable[[str], NDArray[Any]]
"""The value of any tensor of the model, for the picture that it is tried on."""
_PASSING = ("Identity", "Cast", "Dropout")
_RESHAPING = (*_PASSING, "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose")
DISTORTED = 2.1
"""So much may the aspects of a picture and of a map of it differ: a model may make 16:9 square."""
_UPSAMPLED = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def choose(
    model: onnx.ModelProto, probe: Probe, classes: int, wish: str | None, size: tuple[int, int]
) -> tuple[str, str]:
    """(tensor, why) of the output that is the segmentation. `size`: (H, W) of the picture it is probed with.

    Raises EngineError, naming the outputs there are.
    """
    names = [value.name for value in model.graph.output]
    if wish is not None:
        found = next((n for n in names if shown(n) == wish), None)
        found = found or next((o for n in model.graph.node for o in n.output if o and shown(o) == wish), None)
        if found is None:
            there = ", ".join(map(shown, names))
            raise EngineError(f"--output {wish}: the model has no tensor of that name; its outputs: {there}")
        return found, "as said"
    if len(names) == 1:
        return names[0], "the only one"
    makers = {name: node for node in model.graph.node for name in node.output if name}
    fits = {name: _fit(name, makers, probe, classes, size) for name in names}
    listed = ", ".join(f"{shown(n)} {list(probe(n).shape)}" for n in names)
    best = max(names, key=lambda name: fits[name])  # of equals the first
    if fits[best] == 0:
        raise EngineError(f"no output is a map of {classes} classes: {listed}; choose one with --output")
    equal = sum(value == fits[best] for value in fits.values())
    why = f"the first of {equal} alike" if equal > 1 else "the one that fits best"
    return best, f"{why} among {listed}; --output NAME takes another"


def _fit(name: str, makers: Mapping[str, Any], probe: Probe, classes: int, size: tuple[int, int]) -> float:
    """How much an output looks like the segmentation: scores of each class (or labels made of some) before a mere label
    map, what is not called auxiliary before what is, larger before smaller."""
    value = probe(name)
    axis = class_axis(value.shape, classes, size) if value.dtype.kind == "f" else None
    points = 2.0
    if axis is None:
        if not _is_map(value.shape, size) or not (value.dtype.kind in "iub" or classes == 2):
            return 0.0
        points = 2.0 if _before_argmax(makers, name, probe) else 1.0
    return points + max(extent(value.shape, axis)) / 1e6 - 0.5 * ("aux" in shown(name).lower())


def trace(model: onnx.ModelProto, output: str, probe: Probe, classes: int, size: tuple[int, int]) -> Tail:
    """Follows `output` back to what is best to go on with. `size`: (H, W) of the picture it was probed with.

    Raises EngineError where the answer is no map of that many classes.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    value = probe(output)
    if value.dtype.kind == "f" and np.isnan(value).any():
        raise EngineError(
            f"output {shown(output)} is not a number (NaN) in places: if the model takes its pixels in another range, "
            "say so with --pixels, or --mean and --std"
        )
    axis = class_axis(value.shape, classes, size)
    steps: list[str] = []
    tensor, flat = output, None
    if axis is None and (found := _listed(makers, output, probe, classes, size)) is not None:
        tensor, axis = found
        flat = extent(probe(tensor).shape, axis)
        steps.append("the scores before they were made a list")
    elif axis is None:
        if not _is_map(value.shape, size):
            raise EngineError(_misfit(output, value.shape, classes, size))
        scores = _before_argmax(makers, output, probe)
        if scores is None:
            return _of_map(model, output, value, classes, makers)
        tensor, axis = scores
        if (count := probe(tensor).shape[axis]) != classes:
            raise EngineError(f"the model tells {count} classes apart, and {classes} are named")
        steps.append("the scores before its argmax")
    elif value.dtype.kind != "f" and not _quantised(makers, output):
        raise EngineError(
            f"output {shown(output)} is {value.dtype} {list(value.shape)}: neither scores nor a label map"
        )
    tail = Tail(tensor, "logits", classes, axis, 4, flat=flat, steps=tuple(steps))
    return _before_softmax(makers, tail, probe, size)


def class_axis(shape: tuple[int, ...], classes: int, size: tuple[int, int]) -> int | None:
    """Which dimension counts the classes: of [N,K,h,w] and [N,h,w,K], or without N. `size`: (H, W) of the picture,
    whose shape the other two must have."""
    fits = [axis for axis in _axes(shape, size) if shape[axis] == classes]
    return fits[0] if fits else None


def _axes(shape: tuple[int, ...], size: tuple[int, int]) -> list[int]:
    """The dimensions that may count classes as the others are shaped like the picture, the likeliest first."""
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1):
        return []
    fits = [axis for axis in (len(shape) - 3, len(shape) - 1) if _distortion(extent(shape, axis), size) < DISTORTED]
    return sorted(fits, key=lambda axis: _distortion(extent(shape, axis), size))


def _distortion(of: tuple[int, int], size: tuple[int, int]) -> float:
    """How often a map's aspect is the picture's, or the picture's the map's; infinite for what is no map at all."""
    if min(of) < 2:
        return math.inf
    times = of[0] * size[1] / (of[1] * size[0])
    return max(times, 1 / times)


def _is_map(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """[h,w], [1,h,w], [1,1,h,w] or [1,h,w,1], of the picture's shape."""
    if len(shape) == 2:
        return _distortion(extent(shape, None), size) < DISTORTED
    return class_axis(shape, 1, size) is not None


def _misfit(output: str, shape: tuple[int, ...], classes: int, size: tuple[int, int]) -> str:
    given = f"output {shown(output)} is {list(shape)}"
    if axes := _axes(shape, size):
        return f"{given}: {shape[axes[0]]} classes, and {classes} are named"
    return (
        f"{given} for a picture of {size[1]}x{size[0]}, which is no map of it; a model for semantic segmentation is "
        "wanted (is it a classifier or a detector?), or another of its tensors with --output"
    )


def _listed(
    makers: Mapping[str, Any], name: str, probe: Probe, classes: int, size: tuple[int, int]
) -> tuple[str, int] | None:
    """(scores, their class axis) where the answer is a list of all pixels, [1,h*w,K] or [1,K,h*w]."""
    pixels = [n for n in probe(name).shape if n != classes]
    while probe(name).ndim in (3, 4) and (node := makers.get(name)) is not None:
        if node.op_type not in (*_RESHAPING, "Softmax", "LogSoftmax", "Sigmoid"):
            return None
        name = node.input[0]
        shape = probe(name).shape
        axis = class_axis(shape, classes, size) if len(shape) == 4 else None
        if axis is not None:
            return (name, axis) if math.prod(extent(shape, axis)) in pixels else None
    return None


def _quantised(makers: Mapping[str, Any], name: str) -> bool:
    """Whether whole numbers are scores, as quantised models end with, rather than colours."""
    while (node := makers.get(name)) is not None and node.op_type in _RESHAPING:
        name = node.input[0]
    return node is not None and (node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"))


def _before_argmax(makers: Mapping[str, Any], name: str, probe: Probe) -> tuple[str, int] | None:
    """(scores, their class axis) where the map was made by ArgMax, or TopK of 1."""
    while (node := makers.get(name)) is not None:
        if node.op_type in ("ArgMax", "TopK") and (node.op_type == "ArgMax" or name == node.output[1]):
            scores = probe(node.input[0])
            axis = _attribute(node, "axis", 0 if node.op_type == "ArgMax" else -1) % scores.ndim
            if scores.ndim == 4 and axis in (1, 3) and scores.shape[0] == 1 and scores.dtype.kind in "fiu":
                return node.input[0], axis
            return None
        if node.op_type not in _RESHAPING:
            return None
        name = node.input[0]
    return None


def _of_map(model: onnx.ModelProto, name: str, value: NDArray[Any], classes: int, makers: Mapping[str, Any]) -> Tail:
    """Labels without scores behind them; or how much of one foreground there is, in floating point."""
    axis = None
    if value.ndim == 4:
        axis = 1 if value.shape[1] == 1 else 3
    elif value.ndim == 3:
        axis = 2 if value.shape[2] == 1 and value.shape[0] != 1 else None
    full = _full(name, value, makers, model) if classes == 2 else None
    if full is not None:
        step = f"how much of one it is, up to {full:g}"
        return Tail(name, "foreground-probability", 2, axis, value.ndim, bounded=True, full=full, steps=(step,))
    whole = value.dtype.kind in "iub" or bool(np.all(value == np.rint(value)) and value.max() > 0)
    rank = value.ndim
    if classes == 2 and not whole:
        sure = value.min() >= 0 and value.max() <= 1
        behind = makers.get(name)
        while behind is not None and behind.op_type in _PASSING:
            name = behind.input[0]
            behind = makers.get(name)
        if sure and behind is not None and behind.op_type == "Sigmoid":
            return Tail(
                behind.input[0], "foreground", 2, axis, rank, bounded=True, steps=("the logit before its sigmoid",)
            )
        return Tail(name, "foreground-probability" if sure else "foreground", 2, axis, rank, bounded=sure)
    if not whole:
        raise EngineError(
            f"output {shown(name)} is {list(value.shape)} of {value.dtype}: one channel, {classes} classes"
        )
    if (highest := int(value[value != 255].max(initial=0))) >= classes:
        raise EngineError(
            f"the model gives the label {highest}, and only {classes} classes (0 to {classes - 1}) are named"
        )
    return Tail(name, "labels", classes, axis, rank, steps=("no scores behind its labels: smoothed as one-hot",))


def _full(name: str, value: NDArray[Any], makers: Mapping[str, Any], model: onnx.ModelProto) -> float | None:
    """What certainty is in a grey picture of one foreground, 255 in nearly all; None where it is none.

    Bytes may also be the labels 0, 1 and 255 (ignored); and in a picture with nothing of it only the graph tells.
    """
    if value.min() < 0 or value.max() > 255:
        return None
    if value.max() > 127:
        return None if np.isin(value, (0, 1, 255)).all() and (value == 1).any() else 255.0
    weights = {weight.name: weight for weight in model.graph.initializer}
    while (node := makers.get(name)) is not None and node.op_type in _PASSING:
        name = node.input[0]
    if node is None or node.op_type != "Mul":
        return None
    times = [scaling.magnitude(factor, makers, weights) for factor in node.input]
    return next((float(n) for n in times if n is not None and 127 < n <= 255), None)


def _before_softmax(makers: Mapping[str, Any], tail: Tail, probe: Probe, size: tuple[int, int]) -> Tail:
    value = probe(tail.tensor)
    tail = replace(tail, rank=value.ndim)
    if value.ndim != 4:
        return replace(tail, kind=_kind(value, tail))
    resized = False
    while (node := makers.get(tail.tensor)) is not None and tail.axis is not None:
        axis, before = tail.axis, node.input[0] if node.input else ""
        if node.op_type in _PASSING:
            tail = replace(tail, tensor=before)
        elif node.op_type == "Transpose":
            perm = list(_attribute(node, "perm", [3, 2, 1, 0]))
            if perm[0] != 0:
                break
            rows, columns = (perm[dim] for dim in rows_and_columns(axis, tail.swapped))
            tail = replace(tail, tensor=before, axis=perm[axis], swapped=rows > columns)
        elif node.op_type == "Softmax" and _attribute(node, "axis", -1) % 4 == axis:
            tail = replace(tail, tensor=before, steps=(*tail.steps, "the logits before its softmax"))
        elif node.op_type == "Reshape" and (flat := _flat_softmax(makers, before)) is not None:
            tail = replace(tail, tensor=flat, steps=(*tail.steps, "the logits before its softmax"))
        elif node.op_type == "Sigmoid" and not resized:
            tail = replace(tail, tensor=before, steps=(*tail.steps, "the logits before its sigmoid"))
        elif node.op_type == "Resize" and not resized and (how := _upsampling(node, tail, probe, size)) is not None:
            resized = how != "none"
            if resized:
                extent_before = extent(probe(before).shape, axis, tail.swapped)
                smaller = "x".join(map(str, extent_before))
                step = f"the {smaller} scores before its upsampling"
                tail = replace(tail, aligned=_aligned(how, extent_before, size), steps=(*tail.steps, step))
            tail = replace(tail, tensor=before)
        else:
            break
    return replace(tail, kind=_kind(probe(tail.tensor), tail))


def _flat_softmax(makers: Mapping[str, Any], name: str) -> str | None:
    """What the softmax of opset 12 and before was taken of, which the version converter flattens for it."""
    softmax = makers.get(name)
    flat = makers.get(softmax.input[0]) if softmax is not None and softmax.op_type == "Softmax" else None
    return flat.input[0] if flat is not None and flat.op_type == "Flatten" else None


def _kind(value: NDArray[Any], tail: Tail) -> Kind:
    """Probabilities where they are between 0 and 1 and add up to 1; else logits, of which only the order matters."""
    total = value.astype(np.float32).sum(tail.axis)
    certain = float(value.min()) >= 0 and float(np.abs(total - 1).max()) < 0.02
    return "probabilities" if certain else "logits"


def _upsampling(node: Any, tail: Tail, probe: Probe, size: tuple[int, int]) -> str | None:
    """How a Resize made scores of the picture's own size, bilinearly; "none" where it changed nothing."""
    ends = (node.input[0], node.output[0])
    before, after = (extent(probe(name).shape, tail.axis, tail.swapped) for name in ends)
    if before == after:
        return "none"
    how = _attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    linear = _attribute(node, "mode", b"nearest") == b"linear" and not _attribute(node, "antialias", 0)
    larger = all(b >= 2 * a and 2 * b > s for a, b, s in zip(before, after, size, strict=True))
    return how if linear and larger and how in _UPSAMPLED else None


def _aligned(how: str, before: tuple[int, int], size: tuple[int, int]) -> str | None:
    """None where the program's own upsampling is the same one, and the scores are fine enough to be smoothed."""
    fine = all(n * STRIDE >= s for n, s in zip(before, size, strict=True))
    return None if fine and how.endswith("half_pixel") else how


def _attribute(node: Any, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
