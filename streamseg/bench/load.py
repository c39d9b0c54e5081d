"""What a running pipeline costs its process: CPU by stage and by its busiest thread, memory. From /proc; any thread."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from streamseg.metrics import StreamMetrics

TICKS = os.sysconf("SC_CLK_TCK")
STAGES = {
    "streamseg-ingest": "decode",
    "streamseg-inference": "engine",
    "streamseg-publish": "encode",
    "streamseg-encode": "encode",
}
"""By the name of the thread. Decoding includes the watch for cuts; encoding is overlay, JPEG, maps and sending."""
BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment: `threads` CPU seconds by (stage, thread id), `machine` (busy, all) seconds of all cores,
    `dropped` by reason over all streams, `frames` that came in."""

    at_ns: int
    cpu_s: float
    threads: dict[tuple[str, int], float] = field(repr=False)
    machine: tuple[float, float]
    rss_mb: float
    dropped: dict[str, int]
    frames: int


@dataclass(frozen=True, slots=True)
class Load:
    """Between two readings: cores in use by all, by stage, and by each stage's busiest thread; `machine` is the share
    of all cores that anything used, this process or not."""

    seconds: float
    cores: float
    stages: dict[str, float]
    busiest: dict[str, float]
    machine: float | None
    rss_mb: float
    dropped: dict[str, int]
    frames: int


def reading(metrics: dict[str, StreamMetrics]) -> Reading:
    snapshots = [each.snapshot() for each in metrics.values()]
    dropped: dict[str, int] = {}
    for snapshot in snapshots:
        for reason, count in snapshot["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    frames = sum(snapshot["frames"] for snapshot in snapshots)
    return Reading(time.time_ns(), time.process_time(), _threads(), _machine(), _rss_mb(), dropped, frames)


def between(begin: Reading, end: Reading) -> Load:
    seconds = (end.at_ns - begin.at_ns) / 1e9
    stages: dict[str, float] = {}
    busiest: dict[str, float] = {}
    for (stage, thread), spent in end.threads.items():
        cores = (spent - begin.threads.get((stage, thread), 0.0)) / seconds
        stages[stage] = stages.get(stage, 0.0) + cores
        busiest[stage] = max(busiest.get(stage, 0.0), cores)
    machine = end.machine[1] - begin.machine[1]
    return Load(
        seconds=seconds,
        cores=round((end.cpu_s - begin.cpu_s) / seconds, 3),
        stages={stage: round(cores, 2) for stage, cores in sorted(stages.items())},
        busiest={stage: round(cores, 2) for stage, cores in sorted(busiest.items())},
        machine=round((end.machine[0] - begin.machine[0]) / machine, 2) if machine else None,
        rss_mb=round(end.rss_mb, 1),
        dropped={reason: n for reason in end.dropped if (n := end.dropped[reason] - begin.dropped.get(reason, 0))},
        frames=end.frames - begin.frames,
    )


def limit(load: Load, cores: int, gpu_percent: float | None = None, nvdec_percent: float | None = None) -> str:
    """What would have to be faster for more cameras: the GPU or its decoder, the CPU (and what uses most), one stage's
    thread; or nothing that was found, and what is busiest."""
    stages, busiest = load.stages, load.busiest
    if gpu_percent is not None and gpu_percent >= 100 * BUSY:
        return "GPU"
    if nvdec_percent is not None and nvdec_percent >= 100 * BUSY:
        return "NVDEC"
    if not stages:
        return "not known"
    most = max(stages, key=lambda stage: stages[stage])
    machine = (load.machine or 0) * cores
    if load.cores >= BUSY * cores or machine >= (BUSY + 0.05) * cores:
        return f"CPU ({'other processes' if machine > 2 * load.cores else most})"
    thread = max(busiest, key=lambda stage: busiest[stage])
    if busiest[thread] >= BUSY:
        return f"the {thread} thread"
    return f"none (most: {most})"


def _threads() -> dict[tuple[str, int], float]:
    """Python's threads by name; all others are those of libraries (OpenVINO, FFmpeg, ZeroMQ)."""
    named = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for folder in Path("/proc/self/task").glob("*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(folder.name)
        name = named.get(number, "")
        stage = next((stage for prefix, stage in STAGES.items() if name.startswith(prefix)), "other")
        found[stage, number] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def _machine() -> tuple[float, float]:
    """(busy, all) seconds of all cores since boot; 0 where there is no /proc."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0.0, 0.0
    values = [int(value) / TICKS for value in first.split()[1:9]]  # guest time is part of user time
    return sum(values) - values[3] - values[4], sum(values)


def _rss_mb() -> float:
    """Of 2**20 bytes; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
