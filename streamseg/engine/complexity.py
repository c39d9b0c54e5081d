"""How large a network is and how much it computes, counted in its ONNX graph. No thread."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from onnx import TensorProto

from streamseg.engine import program
from streamseg.engine.bundle import Bundle
from streamseg.errors import EngineError

COUNTED = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
WEIGHTS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}
Shape = list[int]


@dataclass(frozen=True, slots=True)
class Complexity:
    """`parameters`: weights and biases as they are shipped, normalisation folded into the convolutions where the
    export did that. `gmac`: 1e9 multiply-accumulates of convolutions and matrix products for one picture, None where
    the graph does not let its shapes be told beforehand."""

    parameters: int
    gmac: float | None


@dataclass(frozen=True, slots=True)
class Work:
    """Of one convolution or matrix product and one picture: multiply-accumulates, and the numbers that it reads and
    writes besides its `weights`, which any number of pictures share."""

    macs: int
    values: int
    weights: int


def work(network: onnx.ModelProto, width: int, height: int) -> list[Work]:
    """All that a bare network's arithmetic cannot do without. Raises EngineError where shapes cannot be told."""
    nodes = [node for node in network.graph.node if node.op_type in COUNTED]
    needed = list(dict.fromkeys(name for node in nodes for name in (*node.input[:2], node.output[0])))
    known = program.shapes(network, width, height, needed)
    if unknown := [name for name in needed if not known[name] or 0 in known[name]]:
        raise EngineError(f"the shape of {unknown[0]} at {width}x{height} cannot be told beforehand")
    fixed = {tensor.name for tensor in network.graph.initializer}
    fixed |= {node.output[0] for node in network.graph.node if node.op_type in {"Constant", *QUANTISERS}}
    return [
        Work(
            _of_node(node, known),
            prod(known[node.output[0]]) + sum(prod(known[n]) for n in node.input[:2] if n not in fixed),
            sum(prod(known[n]) for n in node.input[:2] if n in fixed),
        )
        for node in nodes
    ]


def measure(network: onnx.ModelProto, width: int, height: int) -> Complexity:
    """Of a bare network (see `program.network_of`) on a picture of that size."""
    try:
        return Complexity(parameters(network), round(multiply_accumulates(network, width, height) / 1e9, 3))
    except EngineError:
        return Complexity(parameters(network), None)


def counted(bundle: Bundle) -> dict[str, Any]:
    """{"parameters", "gmac"} as the manifest says, or counted in the graph. Raises EngineError for a damaged model."""
    manifest, model = bundle.manifest, bundle.program
    if manifest.parameters is not None and manifest.gmac is not None:
        return {"parameters": manifest.parameters, "gmac": manifest.gmac}
    found = measure(program.network_of(model), manifest.input.width, manifest.input.height)
    return {"parameters": found.parameters, "gmac": found.gmac}


def parameters(network: onnx.ModelProto) -> int:
    """Elements of all float and int8 tensors that nodes read, but for the scales and zero points of quantised ones."""
    scales = {name for node in network.graph.node if node.op_type in QUANTISERS for name in node.input[1:]}
    read = {name for node in network.graph.node for name in node.input} - scales
    constants = {
        node.output[0]: attribute.t
        for node in network.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    tensors = {tensor.name: tensor for tensor in network.graph.initializer} | constants
    # A tensor without dimensions is a number that belongs to the arithmetic, such as the 0 of a Clip.
    return sum(prod(t.dims) for n, t in tensors.items() if n in read and t.dims and t.data_type in WEIGHTS)


def multiply_accumulates(network: onnx.ModelProto, width: int, height: int) -> int:
    """For one picture. Raises EngineError where shapes cannot be told."""
    return sum(each.macs for each in work(network, width, height))


def _of_node(node: onnx.NodeProto, known: dict[str, Shape]) -> int:
    inputs, output = [known[name] for name in node.input[:2]], known[node.output[0]]
    if node.op_type == "Conv":
        return prod(output) * prod(inputs[1][1:])
    if node.op_type == "ConvTranspose":  # every input value goes to (K / groups) x kernel outputs
        return prod(inputs[0]) * prod(inputs[1][1:])
    if node.op_type == "MatMul":
        return prod(output) * inputs[0][-1]
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(output) * inputs[0][0 if flipped else -1]
