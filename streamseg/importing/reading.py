"""Reads an ONNX file that somebody else made, and brings it to a form the rest can rely on. Passive."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, inliner, version_converter

from streamseg.errors import EngineError

OLDEST, WANTED = 15, 17
"""The program around the network needs opset 15 (Shape with a start); older files are brought to 17."""
PREFIX = "network/"
"""Put before every name of the model, so that none is also the program's (`logits`, `labels`, `image`…)."""
NEWEST_FORMAT = 10
"""The `ir_version` written: onnx states its newest by habit, which runtimes of the same year refuse."""
_KNOWN = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "org.openvinotoolkit")
"""Domains of operators that some runtime here knows."""
_POINTER = b"version https://git-lfs"


def read(path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The model of `path` as it is; and in opset 15 or newer, without local functions, every name with `PREFIX`.

    Raises EngineError when there is none, it is cut short, or no ONNX at all.
    """
    original = _loaded(path)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    if not model.graph.node or not model.graph.output:
        raise EngineError(f"{path} is no ONNX model, or is cut short: it has no nodes and outputs")
    if model.graph.sparse_initializer:
        raise EngineError(f"{path} holds sparse weights, which are not supported; export it with dense ones")
    _check(path, model)
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = _recent(path, model)
    _prefix(model.graph)
    weights = {weight.name for weight in model.graph.initializer}  # until 2019 each was an input too
    used = {name for node in model.graph.node for name in node.input}
    inputs = [value for value in model.graph.input if value.name not in weights and value.name in used]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for dim in (d for value in model.graph.input for d in value.type.tensor_type.shape.dim):
        if dim.dim_value < 0:  # Paddle's way to say that any goes
            dim.Clear()
    model.ir_version = min(max(model.ir_version, 8), NEWEST_FORMAT)
    return original, model


def shown(name: str) -> str:
    """A tensor's name as the file has it."""
    return name.removeprefix(PREFIX)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches of an If, the body of a Loop."""
    return [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def _prefix(graph: onnx.GraphProto) -> None:
    """Not by `onnx.compose`, which forgets (1.23) the weights that only a branch of an If uses."""
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        named.name = PREFIX + named.name
    for node in graph.node:
        node.name = PREFIX + node.name if node.name else ""
        for names in (node.input, node.output):
            names[:] = [PREFIX + name if name else "" for name in names]
        for inner in subgraphs(node):
            _prefix(inner)
    del graph.quantization_annotation[:]


def _check(path: Path, model: onnx.ModelProto) -> None:
    """By ONNX's checker, less its refusal of what runtimes take: inputs and outputs that do not state a shape."""
    known = {*_KNOWN, *(function.domain for function in model.functions)}
    own = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in known})
    if own:
        raise EngineError(
            f"{path} needs operators that are not of ONNX: {', '.join(own)[:200]}; export it without them (those for "
            "one runtime only are often what an exporter puts in for deployment)"
        )
    model.graph.name = model.graph.name or "network"
    ends = [v for v in (*model.graph.input, *model.graph.output) if v.type.WhichOneof("value") in (None, "tensor_type")]
    unstated = [value for value in ends if not value.type.tensor_type.HasField("shape")]
    for value in unstated:
        value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or TensorProto.FLOAT
        value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own classes differ between versions
        raise EngineError(f"{path} is damaged, or no valid ONNX model: {_one_line(error)}") from None
    for value in unstated:
        value.type.tensor_type.ClearField("shape")


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise EngineError(
                    f"{path} is only Git LFS's pointer to a model; `git lfs pull` fetches the model itself"
                )
        return onnx.load(path)
    except FileNotFoundError as error:
        missing = Path(error.filename or path)
        if missing == path or not path.exists():
            raise EngineError(f"there is no file {path}") from None
        raise EngineError(f"{path} keeps its weights in {missing.name}, which is not beside it") from None
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if "exceeds available" in str(error):
            raise EngineError(f"{path} keeps its weights in a file that is cut short: {_one_line(error)}") from None
        if "external data" in str(error).lower() or "should be stored in" in str(error):
            raise EngineError(f"{path} keeps its weights in a file that is not beside it: {_one_line(error)}") from None
        raise EngineError(f"{path} is no ONNX model, or is cut short: {_one_line(error)}") from None


def _recent(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset >= OLDEST:
        return model
    # A domain that no node uses (exporters state ai.onnx.ml by habit) must not keep the converter from its work.
    used = {node.domain for node in model.graph.node}
    for stated in [o for o in model.opset_import if o.domain not in ("", "ai.onnx") and o.domain not in used]:
        model.opset_import.remove(stated)
    try:
        converted = version_converter.convert_version(model, WANTED)
    except Exception as error:
        what = _one_line(error)
        raise EngineError(
            f"{path} is of opset {opset}, which cannot be brought to {WANTED} ({what}); export it with opset {WANTED}"
        ) from None
    if opset < 11:
        _resize_as_before(converted)
    return converted


def _resize_as_before(model: onnx.ModelProto) -> None:
    """Until opset 10 a pixel's place was its number by the scale, of which the converter (1.23) says nothing: its
    Resize would take the middles of pixels, as is the rule since."""
    before = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for node in model.graph.node:
        if node.op_type == "Resize":
            said = {attribute.name for attribute in node.attribute}
            node.attribute.extend(helper.make_attribute(k, v) for k, v in before.items() if k not in said)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
