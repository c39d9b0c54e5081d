"""Quantises a network's convolutions with ONNX Runtime's quantiser, and leaves in float what backends read differently.

QuantizeLinear and DequantizeLinear pairs (Q/DQ) around float operators: OpenVINO, ONNX Runtime and TensorRT read the
same file. TensorRT takes symmetric int8 only, so activations are s8 with zero point 0, though u8 would have twice the
steps behind a ReLU. The caller's thread.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from streamseg.errors import EngineError
from streamseg.quantising.calibration import F32

MISREAD = 0.5
"""Where OpenVINO's answer differs from the standard's by more than this share of what quantising the tensor changes,
it stays float. Rounding of one tensor alone is below 0.1; OpenVINO 2026.4 is at 30 in the edge network's pyramid (a
convolution and pools of one tensor, resized and concatenated), in s8 only."""

NOISE = 1e-4
"""Of the logits: what two ways of adding floats differ by."""


def convolutions(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those that are quantised: all with constant weights but the first and the last, which few weights are in and
    which cost the most accuracy."""
    weights = {tensor.name for tensor in network.graph.initializer}
    found = [node for node in network.graph.node if node.op_type == "Conv" and node.input[1] in weights]
    return found[1:-1]


def inputs_of(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    return list(dict.fromkeys(node.input[0] for node in nodes))


def quantised(network: onnx.ModelProto, ranges: dict[str, float], image: F32) -> onnx.ModelProto:
    """`network` with Q/DQ before its convolutions and their weights as int8, one scale a channel. `ranges` are the
    magnitudes of their inputs. Raises EngineError."""
    from onnxruntime import quantization as ort

    network = _named(network)
    nodes = [node.name for node in convolutions(network)]
    overrides = {n: [{"rmin": np.float32(-r), "rmax": np.float32(r)}] for n, r in ranges.items()}
    with tempfile.TemporaryDirectory(prefix="streamseg-int8-") as folder, _silent():
        before, after = Path(folder) / "network.onnx", Path(folder) / "quantised.onnx"
        onnx.save(network, before)
        try:
            ort.quantize_static(
                before,
                after,
                _One(image),  # its own ranges are overridden
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                weight_type=ort.QuantType.QInt8,
                activation_type=ort.QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=nodes,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                    "TensorQuantOverrides": overrides,
                },
            )
        except Exception as error:  # it raises whatever comes to hand
            raise EngineError(f"ONNX Runtime cannot quantise the network: {' '.join(str(error).split())}") from error
        model = onnx.load(after)
    del model.graph.value_info[:]  # names of every tensor; 10 KB of a small model
    return model


def _named(network: onnx.ModelProto) -> onnx.ModelProto:
    """The quantiser tells nodes by their names, which ONNX does not ask for."""
    named = onnx.ModelProto()
    named.CopyFrom(network)
    for index, node in enumerate(named.graph.node):
        node.name = f"{node.op_type}_{index}"
    return named


class _One:
    """Gives one picture; what the quantiser takes for its calibration data."""

    def __init__(self, image: F32) -> None:
        self._images = iter([{"image": image}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It recommends its own preparation of models through the root logger; batch norms are folded here already."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


Track = Callable[[Sequence[str]], Iterable[str]]


def misread(model: onnx.ModelProto, tensors: Sequence[str], image: F32, track: Track) -> list[str]:
    """The tensors whose quantisation OpenVINO computes otherwise than ONNX says. None where OpenVINO is not installed.

    Each is looked at alone, which takes half a second, but only where the whole differs (measured on street-edge: by
    0.25 of what quantising changes when all is well, as rounding meets rounding; by 1.2 to 2.9 when it is not).
    """
    if find_spec("openvino") is None:
        return []
    plain, fixed = _standard(without(model, tensors), image), _fixed(model, image)
    if not _differs(fixed, plain, image):
        return []

    def alone(tensor: str) -> onnx.ModelProto:
        return without(fixed, [other for other in tensors if other != tensor])

    return [tensor for tensor in track(tensors) if _differs(alone(tensor), plain, image)]


def _differs(model: onnx.ModelProto, plain: F32, image: F32) -> bool:
    """Whether OpenVINO's logits are far from the standard's, compared with what is quantised beyond `plain`."""
    from streamseg.engine.openvino_backend import run_once

    standard = _standard(model, image)
    (theirs,) = run_once(model.SerializeToString(), {"image": image}, ["logits"])
    return bool(
        np.abs(theirs - standard).mean() > MISREAD * np.abs(standard - plain).mean() + NOISE * np.abs(plain).mean()
    )


def _standard(model: onnx.ModelProto, image: F32) -> F32:
    """`logits` by ONNX Runtime with no optimisation: every Q and DQ is computed as it is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: F32 = session.run(["logits"], {"image": image})[0]
    return logits


def without(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy in which the activations `tensors` are not quantised; the weights of their convolutions stay int8."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantises = {n.output[0]: n.input[0] for n in copy.graph.node if n.op_type == "QuantizeLinear"}
    behind = {n.output[0]: quantises.get(n.input[0]) for n in copy.graph.node if n.op_type == "DequantizeLinear"}
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if (real := behind.get(name)) in tensors and real is not None:
                node.input[index] = real
    dropped = {q for q, real in quantises.items() if real in tensors}
    for node in [n for n in copy.graph.node if n.output[0] in dropped or (n.input[:1] and n.input[0] in dropped)]:
        copy.graph.node.remove(node)
    read = {name for node in copy.graph.node for name in node.input}
    for tensor in [t for t in copy.graph.initializer if t.name not in read]:  # their scales and zero points
        copy.graph.initializer.remove(tensor)
    return copy


def _fixed(model: onnx.ModelProto, image: F32) -> onnx.ModelProto:
    """For one size, as engines compile it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for dim, value in zip(copy.graph.input[0].type.tensor_type.shape.dim, image.shape, strict=True):
        dim.dim_value = value
    return copy
