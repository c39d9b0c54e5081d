"""Builds the engine program: one ONNX graph from u8 frames and state to labels and state. No thread, no backend.

    frames u8 [N,H,W,3] RGB, state f32 [N,S,h,w], elapsed_s f32 [N]  ->  labels u8 [N,H,W], state_next f32 [N,S,h,w]

A network (`image` f32 [N,3,H,W], normalised, to `logits` f32 [N,K,h,w]) is given a head (cast, layout, normalisation)
and a tail (softmax, temporal smoothing, bilinear upsampling, argmax), so that every backend computes the same thing.
`scores` [N,K,h,w] names the smoothed probabilities before upsampling: see `upsample` for why a CPU stops there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from streamseg.errors import EngineError

SmoothingMode = Literal["off", "average"]
SMOOTHING_SECONDS = 0.5
"""Time constant of the average at strength 1; strength s means s * 0.5 s, at any frame rate."""


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """`mean` and `std` are RGB in 0..1; `strength` is the smoothing strength, 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    smoothing: SmoothingMode = "average"
    strength: float = 0.1

    @property
    def smooths(self) -> bool:
        return self.smoothing != "off" and self.strength > 0


class _Graph:
    """Collects nodes and constants; `add` returns the name of the node's single output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"program/{name}"))
        return f"program/{name}"

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"program/{output}", **attributes))
        return output


def build(network: onnx.ModelProto, spec: ProgramSpec) -> onnx.ModelProto:
    """The whole program around `network`, any size and batch; `network` in opset 15 or newer."""
    classes = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if not classes:
        raise EngineError("the network's output `logits` does not state its number of classes (dimension 1)")
    g = _Graph()
    _head(g, spec)
    g.nodes.extend(network.graph.node)
    g.constants.extend(network.graph.initializer)
    scores = g.add("Softmax", ["logits"], "probabilities", axis=1)
    inputs = [_value("frames", TensorProto.UINT8, ["N", "H", "W", 3])]
    outputs = [_value("labels", TensorProto.UINT8, ["N", "H", "W"])]
    if spec.smooths:
        scores = _average(g, scores, spec.strength * SMOOTHING_SECONDS)
        inputs.append(_value("state", TensorProto.FLOAT, ["N", classes, "h", "w"]))
        inputs.append(_value("elapsed_s", TensorProto.FLOAT, ["N"]))
        outputs.append(_value("state_next", TensorProto.FLOAT, ["N", classes, "h", "w"]))
    g.add("Identity", [scores], "scores")
    _labels(g)
    seam = [_value("image", TensorProto.FLOAT, ["N", 3, "H", "W"])]
    seam += [_value(n, TensorProto.FLOAT, ["N", classes, "h", "w"]) for n in ("logits", "scores")]
    graph = helper.make_graph(g.nodes, "streamseg", inputs, outputs, g.constants, value_info=seam)
    model = helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
    onnx.checker.check_model(model)
    return model


def network_of(program: onnx.ModelProto) -> onnx.ModelProto:
    """The bare network inside a program, so that another tail can be put on it. Raises EngineError."""
    if missing := {"image", "logits"} - {name for node in program.graph.node for name in (*node.input, *node.output)}:
        raise EngineError(f"not an engine program: it has no tensor named {' or '.join(sorted(missing))}")
    return Extractor(program).extract_model(["image"], ["logits"])


def up_to_scores(program: onnx.ModelProto) -> onnx.ModelProto:
    """The program without upsampling and argmax: its outputs are `scores`, and `state_next` where it smooths."""
    inputs = [value.name for value in program.graph.input]
    outputs = ["scores"] + [v.name for v in program.graph.output if v.name == "state_next"]
    return Extractor(program).extract_model(inputs, outputs)


def scores_shape(program: onnx.ModelProto, width: int, height: int) -> tuple[int, int, int]:
    """(K, h, w) of `scores` for one picture size, by ONNX shape inference."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network_of(program))
    for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = value
    del fixed.graph.output[0].type.tensor_type.shape.dim[:]
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    dims = [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or 0 in dims:
        raise EngineError(f"the network's output size for {width}x{height} cannot be inferred (got {dims})")
    return dims[1], dims[2], dims[3]


def _value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _head(g: _Graph, spec: ProgramSpec) -> None:
    scale = 1 / (255 * np.asarray(spec.std, np.float64))
    shift = -np.asarray(spec.mean, np.float64) / spec.std
    g.add("Cast", ["frames"], "program/float", to=TensorProto.FLOAT)
    g.add("Transpose", ["program/float"], "program/planar", perm=[0, 3, 1, 2])
    g.add("Mul", ["program/planar", g.constant("scale", scale.reshape(1, 3, 1, 1))], "program/scaled")
    g.add("Add", ["program/scaled", g.constant("shift", shift.reshape(1, 3, 1, 1))], "image")


def _average(g: _Graph, scores: str, seconds: float) -> str:
    """Exponential average of time constant `seconds`: s + a (p - s), a = 1 - exp(-elapsed / seconds); 1 at a reset."""
    zero, one = g.constant("zero", 0.0), g.constant("one", 1.0)
    g.add("Mul", ["elapsed_s", g.constant("rate", -1.0 / seconds)], "program/exponent")
    # Clipped at 0, so that a negative elapsed time (a reset) cannot overflow exp before Where discards it.
    g.add("Min", ["program/exponent", zero], "program/exponent_clipped")
    g.add("Exp", ["program/exponent_clipped"], "program/kept")
    g.add("Sub", [one, "program/kept"], "program/gain_running")
    g.add("Less", ["elapsed_s", zero], "program/reset")
    g.add("Where", ["program/reset", one, "program/gain_running"], "program/gain")
    g.add("Reshape", ["program/gain", g.constant("column", [-1, 1, 1, 1], np.int64)], "program/gain4")
    g.add("Sub", [scores, "state"], "program/difference")
    g.add("Mul", ["program/difference", "program/gain4"], "program/step")
    return g.add("Add", ["state", "program/step"], "state_next")


def _labels(g: _Graph) -> None:
    """Bilinear upsampling to the frames' own size, then argmax."""
    g.add("Shape", ["frames"], "program/frame_size", start=1, end=3)
    g.add("Shape", ["scores"], "program/score_size", start=0, end=2)
    g.add("Concat", ["program/score_size", "program/frame_size"], "program/size", axis=0)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    g.add("Resize", ["scores", "", "", "program/size"], "program/upsampled", **attributes)
    g.add("ArgMax", ["program/upsampled"], "program/winner", axis=1, keepdims=0)
    g.add("Cast", ["program/winner"], "labels", to=TensorProto.UINT8)
