"""What a model does to its pixels first of all, and by how much: it tells the range that it takes them in. Passive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_SHAPING = ("Cast", "CastLike", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Expand", "Tile", "Transpose")
"""Operators that exporters leave between a constant and its use."""
_MOVING = (*_SHAPING, "Gather", "Slice", "Split", "Pad", "Resize", "QuantizeLinear", "DequantizeLinear")
"""Operators that change a picture's layout, type, size or order, and not the range of its pixels."""


def first(model: onnx.ModelProto, name: str) -> tuple[str, float] | None:
    """(operator, largest magnitude of its constant) where the model first of all scales or shifts its input `name`."""
    makers = {output: node for node in model.graph.node for output in node.output}
    weights = {weight.name: weight for weight in model.graph.initializer}
    waiting = [name]
    while waiting:
        name = waiting.pop(0)
        for node in model.graph.node:
            if name not in node.input or node.op_type == "Shape":
                continue
            if node.op_type in _MOVING and node.input[0] == name:
                waiting += node.output
                continue
            size = _by(node, name, makers, weights)
            if size is None:
                return None
            if size not in (0.0, 1.0):  # those change nothing; dequantised models have them
                return node.op_type, size
            waiting += node.output
    return None


def _by(node: Any, name: str, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> float | None:
    """The magnitude of the constant in `name - constant` and its like; None where `node` is none of these."""
    if node.op_type in ("Sub", "Div") and node.input[0] == name:
        return magnitude(node.input[1], makers, weights)
    if node.op_type in ("Add", "Mul"):
        other = node.input[1] if node.input[0] == name else node.input[0]
        return magnitude(other, makers, weights)
    if node.op_type == "BatchNormalization" and node.input[0] == name:  # only a mean of bytes is a sign of anything
        mean = magnitude(node.input[3], makers, weights)
        return mean if mean is not None and mean > 1.5 else None
    return None


def magnitude(name: str, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> float | None:
    """The largest absolute value in a tensor; None where it is no constant."""
    if name in weights:
        return float(np.abs(numpy_helper.to_array(weights[name])).max(initial=0))
    node = makers.get(name)
    if node is not None and node.op_type == "Constant":
        value = onnx.helper.get_attribute_value(node.attribute[0])
        value = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        return float(np.abs(np.asarray(value, np.float64)).max(initial=0))
    if node is not None and node.op_type in _SHAPING:
        return magnitude(node.input[0], makers, weights)
    if node is not None and node.op_type == "Concat":
        parts = [magnitude(part, makers, weights) for part in node.input]
        return None if None in parts else max(part for part in parts if part is not None)
    return None
