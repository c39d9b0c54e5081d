"""What the CPU backends share: a program that ends at `scores`, its state, and the labels made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from streamseg.engine import program, upsample
from streamseg.engine.backends import CompileOptions
from streamseg.types import U8

F32 = NDArray[np.float32]


@dataclass(slots=True)
class CpuState:
    """`scores` f32 [1, K, h, w] as the previous frame left them; None before the first."""

    scores: F32 | None = None


class Execute(Protocol):
    def __call__(self, frames: U8, state: F32 | None, elapsed_s: F32 | None) -> F32:
        """frames u8 [1, H, W, 3] -> scores f32 [1, K, h, w], valid until the next call."""
        ...


class CpuProgram:
    """Runs one picture at a time: on a CPU a larger batch only adds latency (measured: no gain from 1 to 8)."""

    max_batch = 1

    def __init__(self, model: onnx.ModelProto, options: CompileOptions, execute: Execute) -> None:
        self._size = (options.width, options.height)
        self._smooths = any(value.name == "state" for value in model.graph.input)
        self._shape = (1, *program.scores_shape(model, *self._size))
        self._execute = execute

    def new_state(self) -> CpuState:
        return CpuState()

    def run(self, frames: Sequence[U8], states: Sequence[CpuState], elapsed_s: Sequence[float]) -> list[U8]:
        return [self._one(*item) for item in zip(frames, states, elapsed_s, strict=True)]

    def _one(self, frame: U8, state: CpuState, elapsed_s: float) -> U8:
        if not self._smooths:
            return upsample.labels(self._execute(frame[None], None, None)[0], *self._size)
        if state.scores is None:
            state.scores, elapsed_s = np.zeros(self._shape, np.float32), -1.0
        scores = self._execute(frame[None], state.scores, np.array([elapsed_s], np.float32))
        np.copyto(state.scores, scores)
        return upsample.labels(state.scores[0], *self._size)
