"""What a device could do at best, and how long a program's own work takes there. In the thread that calls, which waits
for the device. Also runs on a CPU, where nobody needs it but the tests."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from streamseg.engine.complexity import Work
from streamseg.engine.torch_backend import BatchedProgram

log = logging.getLogger("streamseg")
WARM_UPS, RUNS = 3, 20
SIZES = {"cuda": (1 << 29, 8192), "cpu": (1 << 25, 512)}
"""Bytes that are copied (far more than any cache holds) and the side of the matrices (enough to fill the device)."""
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Measured: `copy_bytes_s` read and written by a copy on the device, `matrix_ops_s` of a product of two square
    matrices of random numbers (a multiplication and an addition are two)."""

    copy_bytes_s: float
    matrix_ops_s: float
    precision: str

    def floor_ms(self, work: Sequence[Work], batch: int, pixels: int) -> tuple[float, float]:
        """(ms, the share of it that is bound by bytes): each convolution or product at the slower of its two rates,
        one after the other, all else free; the u8 frames are read once, the u8 labels written once."""
        size = TYPES[self.precision].itemsize
        seconds, by_bytes = 4 * pixels * batch / self.copy_bytes_s, 4 * pixels * batch / self.copy_bytes_s
        for each in work:
            moving = size * (each.values * batch + each.weights) / self.copy_bytes_s
            computing = 2 * each.macs * batch / self.matrix_ops_s
            seconds += max(moving, computing)
            by_bytes += moving if moving > computing else 0.0
        return 1000 * seconds, by_bytes / seconds


def ceiling(where: torch.device, precision: str) -> Ceiling:
    size, side = SIZES[where.type]
    with torch.inference_mode(), torch.cuda.device(where) if where.type == "cuda" else nullcontext():
        sources = [torch.randint(0, 256, (size,), dtype=torch.uint8, device=where) for _ in range(2)]
        target = torch.empty_like(sources[0])
        copy_ms = statistics.median(_timed(where, [partial(target.copy_, source) for source in sources], RUNS))
        del sources, target
        a, b = (torch.randn((side, side), device=where).to(TYPES[precision]) for _ in range(2))
        out = torch.empty_like(a)
        product_ms = statistics.median(_timed(where, [lambda: torch.matmul(a, b, out=out)], RUNS))
    return Ceiling(2 * size / copy_ms * 1000, 2 * side**3 / product_ms * 1000, precision)


def work_ms(program: BatchedProgram, batch: int, runs: int) -> list[float]:
    """Of each of `runs` batches in a row, from the begin of one to that of the next, without transfers."""
    with torch.inference_mode(), program.device.work():
        return _timed(program.device.where, [program.work(batch)], runs)


def kernels_ms(program: BatchedProgram, batch: int) -> float | None:
    """The sum of what the kernels of one batch take, gaps between them left out, as CUPTI tells it; None where it does
    not (no GPU, or no right to its counters)."""
    if program.device.where.type != "cuda":
        return None
    again, only = program.work(batch), [torch.profiler.ProfilerActivity.CUDA]
    try:
        with torch.inference_mode(), program.device.work():
            again()
            torch.cuda.synchronize(program.device.where)
            with torch.profiler.profile(activities=only) as profile:
                for _ in range(RUNS):
                    again()
                torch.cuda.synchronize(program.device.where)
        on_gpu = torch.autograd.DeviceType.CUDA
        spent_us = sum(e.self_device_time_total for e in profile.key_averages() if e.device_type == on_gpu)
    except RuntimeError as error:
        log.warning("the kernels cannot be timed: %s", str(error).splitlines()[0])
        return None
    return spent_us / 1000 / RUNS or None


def _timed(where: torch.device, turns: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Milliseconds of each run; the functions take turns. On a GPU by its own clock, queued without waiting between."""
    for turn in [*turns, *turns, *turns][: max(WARM_UPS, len(turns))]:
        turn()
    if where.type != "cuda":
        marks = [time.perf_counter()]
        for index in range(runs):
            turns[index % len(turns)]()
            marks.append(time.perf_counter())
        return [1000 * (b - a) for a, b in pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    events[0].record()
    for index in range(runs):
        turns[index % len(turns)]()
        events[index + 1].record()
    events[-1].synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(events)]
