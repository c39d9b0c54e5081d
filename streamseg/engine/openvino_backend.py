"""The OpenVINO backend: the default where there is no GPU. Runs in the thread that calls it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from streamseg.engine.backends import CompileOptions
from streamseg.engine.cpu_program import F32, CpuProgram
from streamseg.engine.program import in_runs, up_to_scores
from streamseg.errors import EngineError
from streamseg.types import U8

# OpenVINO reports each import to Google Analytics, unasked, unless its telemetry package is missing. A daemon that sees
# cameras calls nobody: None makes the import of that package fail, and OpenVINO takes its own stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

log = logging.getLogger("streamseg")


class OpenVinoProgram(CpuProgram):
    """One infer request; inputs and outputs are shared with numpy, not copied."""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        super().__init__(model, options, self._infer)
        self._request = _compile(model, options, self._shape).create_infer_request()

    def _infer(self, frames: U8, state: F32 | None, elapsed_s: F32 | None) -> Sequence[F32]:
        inputs: dict[str, Any] = {"frames": frames}
        if state is not None:
            inputs |= {"state": state, "elapsed_s": elapsed_s}
        return list(self._request.infer(inputs, share_inputs=True, share_outputs=True).values())


def run_once(model: bytes, inputs: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """The outputs `names` of any ONNX model, in fp32. Raises RuntimeError."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = compiled.create_infer_request().infer(inputs)
    return [np.array(answers[name]) for name in names]


def output_shape(network: onnx.ModelProto) -> list[int]:
    """The dimensions of its first output, 0 where one is not known even when those of its inputs are."""
    name = network.graph.output[0].name
    return shapes(network, [name])[name]


def shapes(network: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[int]]:
    """The dimensions of any of its tensors, by name; 0 where one is not known, [] where not even their number is."""
    told = onnx.ModelProto()
    told.CopyFrom(network)
    del told.graph.output[:]
    told.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        outputs = openvino.Core().read_model(told.SerializeToString()).outputs
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1]
        raise EngineError(f"OpenVINO cannot read the network: {first}") from error
    found = [output.partial_shape for output in outputs]
    dims = [[d.get_length() if d.is_static else 0 for d in s] if s.rank.is_static else [] for s in found]
    return dict(zip(names, dims, strict=True))


def _compile(model: onnx.ModelProto, options: CompileOptions, state_shape: tuple[int, int, int] | None) -> Any:
    core = openvino.Core()
    try:
        network = core.read_model(in_runs(up_to_scores(model), options.width).SerializeToString())
        sizes: dict[str, Any] = {"frames": [1, options.height, options.width, 3]}
        if state_shape is not None:
            sizes |= {"state": [1, *state_shape], "elapsed_s": [1]}
        network.reshape(sizes)
        # bf16 is said aloud: OpenVINO would pick it by itself where the CPU has it, and fp32 must stay fp32.
        # Of int8 it is what the rest runs in: the convolutions say int8 themselves, in the file.
        precision = "f32" if options.precision == "fp32" else "bf16"
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precision = "f32"
            if options.precision == "bf16":
                log.warning("this CPU computes no bf16: the engine runs in fp32, which is slower")
        hints = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(network, "CPU", hints)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1]
        raise EngineError(
            f"OpenVINO cannot compile the program at {options.width}x{options.height}: {first}"
        ) from error
