"""The `torch-inductor` backend: torch-cuda's programs, fused by torch's compiler where that is faster.

In the thread that compiles the program. It takes minutes (less once it finds its own cache) and holds the interpreter
lock, which cameras would feel: so it is done before the first frame, where it is asked for, and `auto` does without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import onnx
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from streamseg.engine.backends import CompileOptions
from streamseg.engine.tensorrt_backend import agreement, samples
from streamseg.engine.torch_backend import BatchedProgram, Core, cuda_program
from streamseg.engine.torch_walk import Answer, Bound, Walk

log = logging.getLogger("streamseg")
BOUND = 0.99
"""The least share of labels that must be those of the program as it is walked."""
WARM_UPS, RUNS = 5, 30
Make = Callable[[Callable[[Walk], Core]], BatchedProgram]


class Fused:
    """A `Core`: what a walk does, compiled for each batch size, and only once: a pool that grows binds again."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._compiled: dict[int, Callable[..., Answer]] = {}

    def bind(
        self, frames: torch.Tensor, state: torch.Tensor | None = None, elapsed_s: torch.Tensor | None = None
    ) -> Bound:
        given = [each for each in (frames, state, elapsed_s) if each is not None]
        if len(frames) not in self._compiled:
            self._compiled[len(frames)] = self._compile(given)
        call = self._compiled[len(frames)]

        def bound() -> Answer:
            scores, after = call(*given)
            return scores, after

        return bound

    def _compile(self, given: Sequence[torch.Tensor]) -> Callable[..., Answer]:
        with torch.inference_mode(False), torch.no_grad():  # inference tensors cannot be traced
            alike = [torch.zeros(each.shape, dtype=each.dtype, device=each.device) for each in given]
            graph = make_fx(self._walk.settled(*alike))(*alike)
            # in this process: else it would leave others behind
            compiled: Callable[..., Answer] = torch._inductor.compile(graph, alike, {"compile_threads": 1})
        return compiled


def inductor_program(model: onnx.ModelProto, options: CompileOptions) -> BatchedProgram:
    """Raises EngineError where torch-cuda does."""
    return faster(lambda core: cuda_program(model, options, core), options)


def faster(make: Make, options: CompileOptions) -> BatchedProgram:
    """The fused program, if it can be made, gives the same labels, and takes less time for the largest batch."""
    plain = make(lambda walk: walk)
    try:
        fused = make(Fused)
        if (same := agreement(fused, plain, samples(options))) < BOUND:
            raise ValueError(f"only {100 * same:.2f} % of its labels are right")
        before, after = milliseconds(plain), milliseconds(fused)
    except Exception as error:  # of torch's compiler, of Triton, of the C compiler: what is walked serves as well
        log.warning("inductor is not used: %s", (str(error).strip().splitlines() or [type(error).__name__])[0])
        return plain
    wins = fused.max_batch == plain.max_batch and after < before
    said = "" if wins else ", so it is not used"
    log.info("a batch of %d takes inductor %.3f ms, instead of %.3f%s", plain.max_batch, after, before, said)
    return fused if wins else plain


def milliseconds(program: BatchedProgram) -> float:
    """Of the largest batch, without transfers, the mean of many."""
    work, device = program.work(program.max_batch), program.device

    def run(times: int) -> None:
        with torch.inference_mode(), device.work():
            for _ in range(times):
                work()
            last = torch.zeros(1, device=device.where)
        device.download(last).wait()

    run(WARM_UPS)
    begin = time.perf_counter()
    run(RUNS)
    return 1000 * (time.perf_counter() - begin) / RUNS
