"""Runs any ONNX model on a CPU, as it is: to see what it gives, and to compare an imported one with it. Passive."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.errors import EngineError

Array = NDArray[Any]
_PLACE = re.compile(r"/\S+\.(?:h|cc):\d+ .*?\) (?=[A-Z])")
"""Where in ONNX Runtime's source an error is from: a C++ signature that may be longer than the reason after it."""


def run(model: onnx.ModelProto, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The tensors `names` (outputs, or any inner ones) for `feed`. ONNX Runtime where it is installed, else OpenVINO.

    Raises EngineError with the library's own reason.
    """
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    there = {value.name for value in asked.graph.output}
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    execute = _onnxruntime if find_spec("onnxruntime") else _openvino
    try:
        return dict(zip(names, execute(asked.SerializeToString(), dict(feed), list(names)), strict=True))
    except Exception as error:  # each library raises a family of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = _PLACE.sub("", lines[-1])[:300] if lines else type(error).__name__
        raise EngineError(f"the model cannot be run: {reason}") from None


def _onnxruntime(model: bytes, feed: dict[str, Array], names: list[str]) -> Sequence[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its warnings are about graphs that we did not make
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(names, feed)]


def _openvino(model: bytes, feed: dict[str, Array], names: list[str]) -> Sequence[Array]:
    from streamseg.engine.openvino_backend import run_once

    return run_once(model, feed, names)
