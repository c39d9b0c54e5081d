"""The ONNX Runtime backend: the portable fallback. Runs in the thread that calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from streamseg.engine.backends import CompileOptions
from streamseg.engine.cpu_program import F32, Buffer, CpuProgram
from streamseg.engine.program import in_runs, up_to_scores
from streamseg.errors import EngineError
from streamseg.types import U8


class OnnxRuntimeProgram(CpuProgram):
    """fp32 only: ONNX Runtime's CPU kernels have no bf16."""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        super().__init__(model, options)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options.threads
        session.inter_op_num_threads = 1
        # Spinning workers would take the cores that decoding and encoding need.
        session.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session.log_severity_level = 3
        try:
            data = in_runs(up_to_scores(model), options.width).SerializeToString()
            self._session = onnxruntime.InferenceSession(data, session, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime cannot load the program: {error}") from error

    def _infer(self, frames: U8, memory: tuple[Buffer, Buffer] | None, elapsed_s: float) -> F32:
        inputs: dict[str, Any] = {"frames": frames}
        if memory is not None:
            inputs |= {"state": memory[0].array, "elapsed_s": np.array([elapsed_s], np.float32)}
        scores, *state_next = self._session.run(None, inputs)
        if memory is not None:
            np.copyto(memory[1].array, *state_next)
        return np.asarray(scores)
