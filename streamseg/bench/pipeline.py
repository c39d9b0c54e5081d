"""`streamseg bench pipeline`: the real pipeline against the sum of its stages, and against the hand-written loop."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2

from streamseg.bench.baseline import Baseline
from streamseg.bench.stages import measure
from streamseg.config import Config, validated
from streamseg.errors import ConfigError, EngineError
from streamseg.pipeline import Pipeline
from streamseg.publish import Publisher

TOPICS = ("frame/", "labels/")
Say = Any


@dataclass(frozen=True, slots=True)
class Plan:
    """`streams` copies of `source`; `paced` plays them at their own rate; `frames` bounds each stream, 0 is all."""

    source: str
    engine: str
    streams: int
    paced: bool
    rounds: int
    stage_frames: int
    baseline: bool
    overrides: tuple[str, ...]


class Sink:
    """The subscriber's process: started, waited for, and asked for its report."""

    def __init__(self, endpoint: str, topics: tuple[str, ...] = TOPICS) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamseg.bench.sink", endpoint, *topics],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def report(self) -> dict[str, Any]:
        """Ends the sink once it has read everything, and returns its messages."""
        out, _ = self._process.communicate()
        report: dict[str, Any] = json.loads(out)
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def sink(endpoint: str) -> Iterator[Sink]:
    process = Sink(endpoint)
    try:
        yield process
    finally:
        process.kill()


def run(plan: Plan, say: Say) -> dict[str, Any]:
    """The report as `--json` prints it. Refuses to report a rate while frames were dropped. Raises StreamsegError."""
    cv2.setNumThreads(1)
    config = _config(plan)
    say("measuring each stage alone, on one thread")
    stages = _stages(config, plan)
    cores = len(os.sched_getaffinity(0))
    runs, loops = [], []
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}: the pipeline")
        runs.append(_pipeline(config))
        if plan.baseline:
            say(f"round {number + 1} of {plan.rounds}: the hand-written loop")
            loops.append(_baseline(config))
    best = sorted(runs, key=lambda r: r["fps"])[len(runs) // 2]
    bound = 1000 * cores / sum(stages.values())
    report: dict[str, Any] = {
        "source": config.streams[0].parsed.shown,
        "streams": plan.streams,
        "paced": plan.paced,
        "cores": cores,
        "frames": best["frames"],
        "fps": best["fps"],
        "fps_rounds": [r["fps"] for r in runs],
        "bound_fps": round(bound, 1),
        "efficiency": round(best["fps"] / bound, 3),
        "cpu_ms_per_frame": best["cpu_ms_per_frame"],
        "stages_ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        "latency_ms": best["latency_ms"],
        "dropped": best["dropped"],
        "decode": True,
        "overlay": True,
        "jpeg": True,
    }
    if loops:
        baseline = statistics.median(loops)
        report |= {"baseline_fps": baseline, "baseline_rounds": loops, "ratio": round(best["fps"] / baseline, 2)}
    return report
