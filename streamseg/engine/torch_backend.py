"""The torch backend: walks the same ONNX program with torch functions. Runs in the thread that calls it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from streamseg.engine.backends import CompileOptions
from streamseg.engine.program import state_shape
from streamseg.engine.torch_operators import OPERATORS
from streamseg.errors import EngineError
from streamseg.types import U8, MakeLabels


@dataclass(slots=True)
class TorchState:
    """`values` f32 [1, S, h, w] on the device; None before the first frame."""

    values: torch.Tensor | None = None


class TorchProgram:
    """Frames of several streams in one batch; each stream's state is a tensor of its own on the device."""

    def __init__(self, model: onnx.ModelProto, options: CompileOptions) -> None:
        unknown = {node.op_type for node in model.graph.node} - set(OPERATORS) - {"Constant"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise EngineError(f"the torch backend does not know the operators {names}; use openvino or onnxruntime")
        self.max_batch = 1
        self._nodes = [(n, _attributes(n)) for n in model.graph.node]
        self._constants = {c.name: _constant(numpy_helper.to_array(c)) for c in model.graph.initializer}
        self._shape = state_shape(model, options.width, options.height)
        self._bf16 = options.precision == "bf16"
        torch.set_num_threads(options.threads)

    def new_state(self) -> TorchState:
        return TorchState()

    def run(self, frames: Sequence[U8], states: Sequence[TorchState], elapsed_s: Sequence[float]) -> list[MakeLabels]:
        labels = self._run(frames, states, elapsed_s)["labels"]
        return [partial(np.asarray, each) for each in labels.numpy()]

    def run_scores(
        self, frames: Sequence[U8], states: Sequence[TorchState], elapsed_s: Sequence[float]
    ) -> list[NDArray[np.float32]]:
        return list(self._run(frames, states, elapsed_s)["scores"].float().numpy())

    def _run(self, frames: Sequence[U8], states: Sequence[TorchState], elapsed_s: Sequence[float]) -> dict[str, Any]:
        inputs: dict[str, Any] = {"frames": torch.from_numpy(np.stack(frames))}
        if self._shape is not None:
            resets = [state.values is None for state in states]
            kept = [torch.zeros((1, *self._shape)) if s.values is None else s.values for s in states]
            inputs["state"] = torch.cat(kept)
            inputs["elapsed_s"] = torch.tensor([-1.0 if r else e for r, e in zip(resets, elapsed_s, strict=True)])
        values = self._execute(inputs)
        if self._shape is not None:
            for state, after in zip(states, values["state_next"].split(1), strict=True):
                state.values = after
        return values

    def _execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {"": None, **self._constants, **inputs}
        with torch.inference_mode(), self._autocast():
            for node, attributes in self._nodes:
                if node.op_type == "Constant":
                    values[node.output[0]] = attributes["value"]
                    continue
                results = OPERATORS[node.op_type](*(values[name] for name in node.input), **attributes)
                for name, result in zip(node.output, results if len(node.output) > 1 else [results], strict=True):
                    values[name] = result
        return values

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext()


def _constant(array: np.ndarray[Any, Any]) -> Any:
    """Integers are sizes and indices and stay on the host; everything else becomes a tensor."""
    return array if array.dtype in (np.int64, np.int32) else torch.from_numpy(array.copy())


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    read = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Constant":
        return {"value": _constant(numpy_helper.to_array(read["value"]))}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in read.items()}
