"""The OpenVINO backend: the default where there is no GPU. Runs in the thread that calls it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.engine.backends import CompileOptions
from streamseg.engine.cpu_program import F32, Buffer, CpuProgram
from streamseg.engine.program import in_runs, up_to_scores
from streamseg.errors import EngineError
from streamseg.types import U8

# OpenVINO reports each import to Google Analytics, unasked, unless its telemetry package is missing. A daemon that sees
# cameras calls nobody: None makes the import of that package fail, and OpenVINO takes its own stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

log = logging.getLogger("streamseg")


@cache
def _core() -> Any:
    """One for the whole process, for ever. OpenVINO 2026.4 gives the thread that compiles first a signal stack, which
    goes with its last core and model: where another thread drops that, the next Ctrl-C is a segmentation fault."""
    return openvino.Core()


class OpenVinoProgram(CpuProgram):
    """One infer request, whose inputs and state lie in numpy's memory: nothing is copied."""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        super().__init__(model, options)
        self._request = _compile(model, options, self._shape).create_infer_request()

    def _tensor(self, array: F32) -> Any:
        return _shared(array)

    def _infer(self, frames: U8, memory: tuple[Buffer, Buffer] | None, elapsed_s: float) -> F32:
        given = {"frames": _shared(np.require(frames, requirements=["C", "W"]))}
        if memory is not None:
            before, after = memory
            given |= {"state": before.tensor, "state_next": after.tensor}
            given["elapsed_s"] = _shared(np.array([elapsed_s], np.float32))
        for name, tensor in given.items():
            self._request.set_tensor(name, tensor)
        self._request.infer()
        scores: F32 = self._request.get_tensor("scores").data
        return scores


def _shared(array: NDArray[Any]) -> Any:
    return openvino.Tensor(array, shared_memory=True)


def run_once(model: bytes, inputs: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """The outputs `names` of any ONNX model, in fp32. Raises RuntimeError."""
    core = _core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = compiled.create_infer_request().infer(inputs)
    return [np.array(answers[name]) for name in names]


def shapes(network: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[int]]:
    """The dimensions of any of its tensors, by name; 0 where one is not known, [] where not even their number is."""
    told = onnx.ModelProto()
    told.CopyFrom(network)
    del told.graph.output[:]
    told.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        outputs = _core().read_model(told.SerializeToString()).outputs
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1]
        raise EngineError(f"OpenVINO cannot read the network: {first}") from error
    found = [output.partial_shape for output in outputs]
    dims = [[d.get_length() if d.is_static else 0 for d in s] if s.rank.is_static else [] for s in found]
    return dict(zip(names, dims, strict=True))


def _compile(model: onnx.ModelProto, options: CompileOptions, state_shape: tuple[int, int, int] | None) -> Any:
    core = _core()
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
