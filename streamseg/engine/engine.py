"""An engine at work: a bundle on a backend, a compiled program per picture size, and every stream's state.

One thread (the pipeline's inference thread) runs it; it is not thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from streamseg.engine import program
from streamseg.engine.backends import CompileOptions, Precision, Program, State, choose
from streamseg.engine.bundle import Bundle
from streamseg.engine.program import ProgramSpec, SmoothingMode
from streamseg.engine.smoothing import DEFAULT_STRENGTH
from streamseg.types import Frame, Result, Roi

# A pause this long (a camera that froze, a gap in a file) says nothing about what is in the picture now.
FORGET_SECONDS = 5.0


@dataclass(slots=True)
class _StreamState:
    key: tuple[int, int, int]
    """The frame's state_key and the input size: when it changes, the past is forgotten."""
    media_ns: int
    state: State


class Engine:
    """Segments frames of any stream and size. `size` None fits each source's aspect; (width, height) forces one."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str = "auto",
        precision: Precision = "auto",
        threads: int = 1,
        size: tuple[int, int] | None = None,
        smoothing: SmoothingMode | None = None,
        strength: float | None = None,
    ) -> None:
        entry, default = bundle.manifest.input, bundle.manifest.smoothing
        self.bundle = bundle
        self.classes = bundle.classes
        self.backend, self._compile = choose(backend)
        mode = smoothing or default.mode
        if strength is None:
            strength = default.strength if mode == default.mode else None
        if strength is None:
            strength = DEFAULT_STRENGTH[mode]
        self.spec = ProgramSpec(entry.mean, entry.std, mode, strength, bundle.moving, bundle.whole)
        self._precision: Precision = precision
        self._threads = threads
        self._size = size
        self._model = program.build(program.network_of(bundle.program), self.spec)
        self._programs: dict[tuple[int, int], Program] = {}
        self._streams: dict[str, _StreamState] = {}

    def __repr__(self) -> str:
        return f"Engine({self.bundle.identity}, {self.backend}, smoothing={self.spec.mode})"

    @property
    def max_batch(self) -> int:
        return max((p.max_batch for p in self._programs.values()), default=1)

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the label map for a source of that size."""
        return self._size or self.bundle.fit(width, height)

    def prepare(self) -> None:
        """Compiles for the size that most cameras come to, so that faults show before the first frame."""
        entry = self.bundle.manifest.input
        self.program(self.size_for(entry.width, entry.height))

    def program(self, size: tuple[int, int]) -> Program:
        """The compiled program for one input size; compiled on first use (0.2-0.5 s)."""
        if size not in self._programs:
            options = CompileOptions(*size, precision=self._precision, threads=self._threads)
            self._programs[size] = self._compile(self._model, options)
        return self._programs[size]

    def run(self, frames: Sequence[Frame]) -> list[Result]:
        """Segments frames of different streams that share one input size, in order."""
        begin_ns = time.monotonic_ns()
        size = self.size_for(frames[0].picture.width, frames[0].picture.height)
        compiled = self.program(size)
        pictures = [frame.picture.rgb(*size) for frame in frames]
        memories = [self._memory(frame, size, compiled) for frame in frames]
        makers = compiled.run(pictures, [state for state, _ in memories], [elapsed for _, elapsed in memories])
        infer_us = (time.monotonic_ns() - begin_ns) // 1000
        return [
            Result(
                frame=frame,
                make_labels=cache(make_labels),
                engine=self.bundle.identity,
                smoothed=self.spec.smooths,
                roi=Roi(0, 0, frame.picture.width, frame.picture.height),
                wait_us=max(0, begin_ns - frame.ready_ns) // 1000,
                infer_us=infer_us,
            )
            for frame, make_labels in zip(frames, makers, strict=True)
        ]

    def _memory(self, frame: Frame, size: tuple[int, int], compiled: Program) -> tuple[State, float]:
        """The stream's state and the seconds since its previous analysed frame, -1 after a reset."""
        key = (frame.state_key, *size)
        stream = self._streams.get(frame.stream)
        if stream is None or stream.key != key:
            self._streams[frame.stream] = _StreamState(key, frame.media_ns, compiled.new_state())
            return self._streams[frame.stream].state, -1.0
        elapsed_s = (frame.media_ns - stream.media_ns) / 1e9
        stream.media_ns = frame.media_ns
        return stream.state, elapsed_s if 0 <= elapsed_s <= FORGET_SECONDS else -1.0
