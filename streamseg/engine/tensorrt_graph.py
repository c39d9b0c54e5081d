"""An engine program as TensorRT wants it. Passive; no TensorRT here.

TensorRT's strongly typed networks (the only kind from 11 on) compute in the types that the graph states, so fp16 is an
fp16 graph and int8 one with Q/DQ. Bytes may only enter and leave: u8 converts from and to fp32 and fp16 alone
(https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/FoundationalTypes/DataType.html), so the
frames are cast before anything else looks at them. It ends at `scores`: labels are made by the same code as of torch.
"""

from __future__ import annotations

from typing import Literal

import onnx
from onnx import TensorProto, helper, version_converter

from streamseg.engine.half import QUANTISERS, in_half
from streamseg.engine.program import state_shape, up_to_scores
from streamseg.errors import EngineError

PlanPrecision = Literal["fp32", "fp16", "int8"]
HALF_SCALES = 19
"""The opset from which Q/DQ scales may be fp16."""


def for_tensorrt(program: onnx.ModelProto, precision: PlanPrecision, width: int, height: int) -> onnx.ModelProto:
    """The program up to `scores` for pictures of one size and any number, strongly typed. Raises EngineError.

    `int8` wants a program whose network is quantised: symmetric, s8, zero point 0."""
    quantised = any(node.op_type in QUANTISERS for node in program.graph.node)
    if quantised != (precision == "int8"):
        raise EngineError(f"the network is {'' if quantised else 'not '}quantised, and {precision} is wanted")
    model = up_to_scores(program)
    if quantised:
        _check_symmetric(model)
        model = _at_least(model, HALF_SCALES)
    if precision != "fp32":
        model = in_half(model)
    _cast_frames(model)
    _fix_sizes(model, state_shape(program, width, height), width, height)
    return model


def takes_batches(model: onnx.ModelProto) -> bool:
    """Whether two pictures give two answers: some exporters write a batch of one into the graph."""
    two = onnx.ModelProto()
    two.CopyFrom(model)
    for value in two.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    for value in (*two.graph.output, *two.graph.value_info):
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(two, data_prop=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return False
    # of the network: behind it, its one answer would be spread over the states of two
    dims = next((v.type.tensor_type.shape.dim for v in inferred.graph.value_info if v.name == "logits"), ())
    return not dims or dims[0].dim_value in (0, 2)


def _cast_frames(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == "frames":
                node.input[position] = "frames/float"
    cast = helper.make_node("Cast", ["frames"], ["frames/float"], name="cast/frames", to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)


def _fix_sizes(model: onnx.ModelProto, state: tuple[int, int, int] | None, width: int, height: int) -> None:
    shapes = {"frames": (height, width, 3), "state": state or (), "elapsed_s": ()}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param = "N"
        for dim, size in zip(list(dims)[1:], shapes[value.name], strict=True):
            dim.dim_value = size


def _check_symmetric(model: onnx.ModelProto) -> None:
    constants = {c.name: c for c in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in QUANTISERS and len(node.input) > 2:
            zero = onnx.numpy_helper.to_array(constants[node.input[2]]) if node.input[2] in constants else None
            if zero is None or zero.dtype.name not in ("int8", "int32") or zero.any():
                raise EngineError("TensorRT takes int8 with zero point 0 only; build it again: streamseg engine build")


def _at_least(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    if max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own classes
        raise EngineError(
            f"the network cannot be put into opset {opset}: {' '.join(str(error).split())[:200]}"
        ) from error
