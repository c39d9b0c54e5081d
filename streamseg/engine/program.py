"""Builds the engine program: one ONNX graph from u8 frames and state to labels and state. No thread, no backend.

    frames u8 [N,H,W,3] RGB, state f32 [N,S,h,w], elapsed_s f32 [N]  ->  labels u8 [N,H,W], state_next f32 [N,S,h,w]

A network (`image` f32 [N,3,H,W], normalised, to `logits` f32 [N,K,h,w]) is given a head (cast, layout, normalisation)
and a tail (softmax, temporal smoothing, bilinear upsampling, argmax), so that every backend computes the same thing.
`scores` [N,K,h,w] names the smoothed probabilities before upsampling: see `upsample` for why a CPU stops there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from streamseg.engine import smoothing
from streamseg.engine.graph import Graph
from streamseg.errors import EngineError
from streamseg.types import SmoothingMode

_HEAD = ("program/float", "program/scaled", "program/normalised")


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """`mean` and `std` are RGB in 0..1; `mode` and `strength` (0..1): see `smoothing`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mode: SmoothingMode = "adaptive"
    strength: float = smoothing.DEFAULT_STRENGTH["adaptive"]
    moves: tuple[int, ...] = ()
    """Ids of the classes of things that move."""
    size: tuple[int, int] = (512, 512)
    """(width, height) of a picture that the network takes, to tell its strides by."""

    @property
    def smooths(self) -> bool:
        return self.mode != "off" and self.strength > 0


def build(network: onnx.ModelProto, spec: ProgramSpec) -> onnx.ModelProto:
    """The whole program around `network`, any size and batch (one size where its `image` states one); `network` in
    opset 15 or newer."""
    classes = network.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if not classes:
        raise EngineError("the network's output `logits` does not state its number of classes (dimension 1)")
    g = Graph(max(o.version for o in network.opset_import if o.domain in ("", "ai.onnx")))
    _head(g, spec)
    g.nodes.extend(network.graph.node)
    g.constants.extend(network.graph.initializer)
    g.add("Softmax", ["logits"], "probabilities", axis=1)
    inputs = [_value("frames", TensorProto.UINT8, ["N", "H", "W", 3])]
    outputs = [_value("labels", TensorProto.UINT8, ["N", "H", "W"])]
    if spec.smooths:
        if spec.mode == "average":
            channels = classes
            smoothing.average(g, spec.strength)
        else:
            look = smoothing.Look(_strides(network, spec.size), spec.mean, spec.std)
            channels = smoothing.adaptive(g, spec.strength, classes, look, spec.moves)
        inputs.append(_value("state", TensorProto.FLOAT, ["N", channels, "h", "w"]))
        inputs.append(_value("elapsed_s", TensorProto.FLOAT, ["N"]))
        outputs.append(_value("state_next", TensorProto.FLOAT, ["N", channels, "h", "w"]))
    else:
        g.add("Identity", ["probabilities"], "scores")
    _labels(g)
    seam = [_value("image", TensorProto.FLOAT, ["N", 3, *(_only_size(network) or ("H", "W"))])]
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


def in_runs(program: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """An equal program for pictures of one width that normalises up to 16 pixels at a time: over an innermost dimension
    of three a CPU's vector units idle (street-edge, one thread: ONNX Runtime 16.8 -> 13.9 ms, OpenVINO 6.65 -> 6.5)."""
    pixels = math.gcd(width, 16)
    model = onnx.ModelProto()
    model.CopyFrom(program)
    nodes = {name: node for node in model.graph.node for name in node.output}
    cast, scaled, shifted, image = (nodes.get(name) for name in (*_HEAD, "image"))
    if pixels == 1 or not (cast and scaled and shifted and image):
        return program
    for constant in model.graph.initializer:
        if constant.name in (scaled.input[1], shifted.input[1]):
            constant.CopyFrom(numpy_helper.from_array(np.tile(numpy_helper.to_array(constant), pixels), constant.name))
    g = Graph(0, "runs")
    cast.input[0] = g.op("Reshape", "frames", g.constant("run", [0, 0, -1, 3 * pixels], np.int64))
    image.input[0] = g.op("Reshape", shifted.output[0], g.constant("pixel", [0, 0, -1, 3], np.int64))
    model.graph.initializer.extend(g.constants)
    first, second = g.nodes
    model.graph.node.insert(0, first)
    model.graph.node.insert(list(model.graph.node).index(image), second)
    return model


def state_shape(program: onnx.ModelProto, width: int, height: int) -> tuple[int, int, int] | None:
    """(S, h, w) of `state` for one picture size; None where the program keeps none."""
    for value in program.graph.input:
        if value.name == "state":
            _, rows, columns = _logits_shape(network_of(program), width, height)
            return value.type.tensor_type.shape.dim[1].dim_value, rows, columns
    return None


def scores_shape(program: onnx.ModelProto, width: int, height: int) -> tuple[int, int, int]:
    """(K, h, w) of `scores` for one picture size."""
    return _logits_shape(network_of(program), width, height)


def _only_size(network: onnx.ModelProto) -> tuple[int, int] | None:
    """(H, W) of `image` where the network takes no other."""
    _, _, height, width = (dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim)
    return (height, width) if height and width else None


def _strides(network: onnx.ModelProto, size: tuple[int, int]) -> tuple[float, float]:
    """Pixels of the picture to one of `logits`, down and across."""
    height, width = _only_size(network) or size[::-1]
    _, rows, columns = _logits_shape(network, width, height)
    return height / rows, width / columns


def _logits_shape(network: onnx.ModelProto, width: int, height: int) -> tuple[int, int, int]:
    """(K, h, w) of `logits` for one picture size."""
    dims = shapes(network, width, height, ["logits"])["logits"]
    if len(dims) != 4 or 0 in dims:
        raise EngineError(f"the network's output size for {width}x{height} cannot be inferred (got {dims})")
    return dims[1], dims[2], dims[3]


def shapes(network: onnx.ModelProto, width: int, height: int, names: Iterable[str]) -> dict[str, list[int]]:
    """The dimensions of a bare network's tensors for one picture of that size, by name, `names` at least: by ONNX, and
    what that leaves open by OpenVINO. 0 where one is not known, [] where not even their number is."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    for dim, value in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = value
    fixed.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        known[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    # Such as are computed from others, as third parties' exporters leave them.
    if open_ := [name for name in names if not known.get(name) or 0 in known[name]]:
        from streamseg.engine.openvino_backend import shapes as told

        known |= told(fixed, open_)
    return known


def _value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _head(g: Graph, spec: ProgramSpec) -> None:
    scale = 1 / (255 * np.asarray(spec.std, np.float64))
    shift = -np.asarray(spec.mean, np.float64) / spec.std
    cast, scaled, shifted = _HEAD
    g.add("Cast", ["frames"], cast, to=TensorProto.FLOAT)
    g.add("Mul", [cast, g.constant("scale", scale)], scaled)
    g.add("Add", [scaled, g.constant("shift", shift)], shifted)
    g.add("Transpose", [shifted], "image", perm=[0, 3, 1, 2])


def _labels(g: Graph) -> None:
    """Bilinear upsampling to the frames' own size, then argmax."""
    g.add("Shape", ["frames"], "program/frame_size", start=1, end=3)
    g.add("Shape", ["scores"], "program/score_size", start=0, end=2)
    g.add("Concat", ["program/score_size", "program/frame_size"], "program/size", axis=0)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    g.add("Resize", ["scores", "", "", "program/size"], "program/upsampled", **attributes)
    g.add("ArgMax", ["program/upsampled"], "program/winner", axis=1, keepdims=0)
    g.add("Cast", ["program/winner"], "labels", to=TensorProto.UINT8)
