"""The ONNX Runtime backend: the portable fallback. Runs in the thread that calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnxruntime

from streamseg.engine.backends import CompileOptions
from streamseg.engine.cpu_program import F32, CpuProgram
from streamseg.engine.program import in_runs, up_to_scores
from streamseg.errors import EngineError
from streamseg.types import U8


class OnnxRuntimeProgram(CpuProgram):
    """fp32 only: ONNX Runtime's CPU kernels have no bf16."""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        super().__init__(model, options, self._infer)
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

    def _infer(self, frames: U8, state: F32 | None, elapsed_s: F32 | None) -> Sequence[F32]:
        inputs: dict[str, Any] = {"frames": frames}
        if state is not None:
            inputs |= {"state": state, "elapsed_s": elapsed_s}
        outputs: Sequence[F32] = self._session.run(None, inputs)
        return outputs
