"""Puts the network of an engine program into fp16, types written out in the graph. Passive; no backend.

Smoothing and softmax stay in fp32: the state is f32 on every backend, and a gain of 0.01 a frame would be lost in half
precision. So `image` is cast once before the network and `logits` once behind it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamseg.errors import EngineError

SEAM_IN, SEAM_OUT = "image", "logits"
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
LARGEST = float(np.finfo(np.float16).max)
_FLOATS = (TensorProto.FLOAT, TensorProto.UNDEFINED)


def in_half(program: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose network computes in fp16, strongly typed: every operator's inputs agree, casts are nodes of their
    own. Weights beyond 65504 are clipped to it. Raises EngineError.

    Quantised networks (Q/DQ) keep their integers; their scales, and with them what lies between, become fp16. That is
    defined from opset 19 on (https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html)."""
    model = onnx.ModelProto()
    model.CopyFrom(program)
    quantised = any(node.op_type in QUANTISERS for node in model.graph.node)
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if quantised and opset < 19:
        raise EngineError(
            f"a quantised network in opset {opset} has scales in fp32 only; export it in opset 19 or newer"
        )
    _Conversion(model).run()
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # protobuf and the checker raise their own classes, which differ between versions
        raise EngineError(
            f"the network cannot be put into half precision: {' '.join(str(error).split())[:200]}"
        ) from error
    return model


class _Conversion:
    """Works on `model` in place. What is computed from shapes and constants alone keeps its types: sizes beyond 2048
    are not whole numbers in fp16."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {c.name: c for c in self._graph.initializer}
        self._types = _types(model)
        self._network = network_nodes(self._graph.node)
        self._fixed = _fixed(self._graph.node, self._constants)
        self._cast: dict[str, str] = {}
        self._casts: list[onnx.NodeProto] = []

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(self._graph.node):
            if index in self._network:
                self._convert(node)
                nodes += self._casts
                self._casts = []
            nodes.append(node)
            if SEAM_OUT in node.output:
                self._rename(node, SEAM_OUT, f"half/{SEAM_OUT}")
                nodes.append(_cast(f"half/{SEAM_OUT}", SEAM_OUT, TensorProto.FLOAT))
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [c for c in self._graph.initializer if c.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        self._forget_types()

    def _convert(self, node: onnx.NodeProto) -> None:
        if all(name in self._fixed for name in node.output):
            return
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        for position, name in enumerate(node.input):
            if not name or (node.op_type == "Resize" and position in (1, 2)):  # roi, scales: always fp32
                continue
            outside = name == SEAM_IN or name in self._constants or name in self._fixed
            if outside and self._types.get(name, TensorProto.UNDEFINED) in _FLOATS:
                node.input[position] = self._in_half(name)

    def _in_half(self, name: str) -> str:
        """The name of the same tensor in half precision."""
        if name not in self._cast:
            self._cast[name] = f"half/{name}"
            if name in self._constants:
                self._graph.initializer.append(self._converted(self._constants[name]))
            else:
                self._casts.append(_cast(name, f"half/{name}", TensorProto.FLOAT16))
        return self._cast[name]

    def _converted(self, constant: onnx.TensorProto) -> onnx.TensorProto:
        values = np.clip(numpy_helper.to_array(constant), -LARGEST, LARGEST)
        return numpy_helper.from_array(values.astype(np.float16), f"half/{constant.name}")

    def _rename(self, node: onnx.NodeProto, old: str, new: str) -> None:
        for position, name in enumerate(node.output):
            if name == old:
                node.output[position] = new

    def _forget_types(self) -> None:
        """What is noted of tensors inside the network says fp32 still."""
        kept = [v for v in self._graph.value_info if v.name in (SEAM_IN, SEAM_OUT, "scores")]
        del self._graph.value_info[:]
        self._graph.value_info.extend(kept)


def network_nodes(nodes: Iterable[onnx.NodeProto]) -> set[int]:
    """The positions of the nodes between `image` and `logits`. Raises EngineError."""
    wanted, found = {SEAM_OUT}, set()
    for index, node in reversed(list(enumerate(nodes))):
        if wanted & set(node.output):
            found.add(index)
            wanted |= set(node.input) - {SEAM_IN, ""}
    if not found:
        raise EngineError(f"not an engine program: it has no tensor named {SEAM_OUT}")
    return found


def _fixed(nodes: Iterable[onnx.NodeProto], constants: Iterable[str]) -> set[str]:
    """The names of what depends on shapes and constants alone, but for weights in int8, which are converted: a cast
    between them and their convolution would hide from a compiler that it is one of int8."""
    fixed = {"", *constants}
    for node in nodes:
        known = all(name in fixed for name in node.input) and node.op_type not in QUANTISERS
        if node.op_type == "Shape" or known:
            fixed |= set(node.output)
    return fixed


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input)}
    return types | {c.name: c.data_type for c in inferred.initializer}


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=dtype)
