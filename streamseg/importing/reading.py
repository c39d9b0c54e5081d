"""Reads an ONNX file that somebody else made, and brings it to a form the rest can rely on. Passive."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import compose, inliner, version_converter

from streamseg.errors import EngineError

OLDEST, WANTED = 15, 17
"""The program around the network needs opset 15 (Shape with a start); older files are brought to 17."""
PREFIX = "network/"
"""Put before every name of the model, so that none is also the program's (`logits`, `labels`, `image`…)."""


def read(path: Path) -> onnx.ModelProto:
    """The model of `path` in opset 15 or newer, without local functions, every name with `PREFIX`.

    Raises EngineError when there is none, it is cut short, or no ONNX at all.
    """
    model = _loaded(path)
    if not model.graph.node or not model.graph.output:
        raise EngineError(f"{path} is no ONNX model, or is cut short: it has no nodes and outputs")
    if model.graph.sparse_initializer:
        raise EngineError(f"{path} holds sparse weights, which are not supported; export it with dense ones")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own classes differ between versions
        raise EngineError(f"{path} is damaged, or no valid ONNX model: {_one_line(error)}") from None
    if model.functions:
        model = inliner.inline_local_functions(model)
    model = compose.add_prefix(_recent(path, model), PREFIX)
    weights = {weight.name for weight in model.graph.initializer}  # until 2019 each was an input too
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)
    return model


def shown(name: str) -> str:
    """A tensor's name as the file has it."""
    return name.removeprefix(PREFIX)


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except FileNotFoundError as error:
        missing = Path(error.filename or path)
        if missing == path or not path.exists():
            raise EngineError(f"there is no file {path}") from None
        raise EngineError(f"{path} keeps its weights in {missing.name}, which is not beside it") from None
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
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
        return version_converter.convert_version(model, WANTED)
    except Exception as error:
        what = _one_line(error)
        raise EngineError(
            f"{path} is of opset {opset}, which cannot be brought to {WANTED} ({what}); export it with opset {WANTED}"
        ) from None


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
