"""`streamseg bench pipeline`: the real pipeline against the sum of its stages, and against the hand-written loop."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2

from streamseg.bench.baseline import Baseline
from streamseg.bench.stages import measure
from streamseg.bench.subscriber import sink
from streamseg.config import Config, StreamConfig, validated
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError
from streamseg.ingest.frames import source_frames
from streamseg.ingest.reader import ReadOptions
from streamseg.pipeline import Pipeline, engine_of
from streamseg.types import Frame

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """`streams` copies of `source`, flat out, or `paced` at their own rate and for at most `seconds`."""

    source: str
    engine: str
    streams: int
    paced: bool
    seconds: float
    rounds: int
    stage_frames: int
    baseline: bool
    overrides: tuple[str, ...]


def run(plan: Plan, say: Say) -> dict[str, Any]:
    """The report as `--json` prints it. Refuses to report a rate while frames were dropped. Raises StreamsegError."""
    cv2.setNumThreads(1)
    config = _config(plan)
    say("measuring each stage alone, on one thread")
    config = config.model_copy(update={"streams": tuple(map(_every_frame, config.streams))})
    stages = measure(config, engine_of(config), plan.stage_frames)
    gate_ms = stages.pop("gate")  # told, but no part of the bound: every frame is analysed here
    cores = len(os.sched_getaffinity(0))
    runs, loops = [], []
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}: the pipeline")
        runs.append(_pipeline(config, plan.seconds if plan.paced else None))
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
        "gate_ms": round(gate_ms, 3),
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


def _config(plan: Plan) -> Config:
    source = plan.source
    if source.startswith("synthetic://") and "pace=" not in source:
        source += f"{'&' if '?' in source else '?'}pace={'realtime' if plan.paced else 'max'}"
    streams = [
        {"id": f"bench{i}", "source": source, "pace": "realtime" if plan.paced else "max"} for i in range(plan.streams)
    ]
    publish = {"bind": "tcp://127.0.0.1:*", "wait_subscriber": not plan.paced}
    config = validated({"streams": streams, "engine": {"name": plan.engine}, "publish": publish}, plan.overrides)
    first = config.streams[0].parsed
    if not plan.paced and first.kind not in ("file", "synthetic"):
        raise ConfigError(f"{first.shown}: a live source comes at its own rate; add --paced")
    if not plan.paced and first.street is not None and first.street.frames is None:
        raise ConfigError(f"{first.shown}: never ends; add frames=, such as synthetic://street?frames=500")
    return config


def _pipeline(config: Config, seconds: float | None) -> dict[str, Any]:
    """One run of the real thing: FPS as the subscriber saw it, CPU, latency, drops."""
    pipeline = Pipeline(config, give_up_unopened=True)
    pipeline.engine.program(_input_size(config, pipeline.engine))
    timer = threading.Timer(seconds or 0, pipeline.stop)
    with sink(pipeline.open()) as subscriber:
        pipeline.publisher.wait_for_subscriber(10)
        cpu = time.process_time()
        if seconds is not None:
            timer.start()
        try:
            outcome = pipeline.run()
        finally:
            timer.cancel()
            pipeline.close()
        cpu = time.process_time() - cpu
        messages = subscriber.report()["messages"]
    if outcome.failed:
        raise next(iter(outcome.failed.values()))
    frames = [m for m in messages if m[0] == "labels"]
    pictures = [m for m in messages if m[0] == "frame"]
    dropped = sum(sum(s["dropped"].values()) for s in outcome.streams.values())
    if not (len(frames) == len(pictures) == outcome.published) or (config.publish.wait_subscriber and dropped):
        raise EngineError(
            f"no rate is reported while frames are lost: {outcome.published} published, {dropped} dropped, "
            f"{len(frames)} label maps and {len(pictures)} pictures received"
        )
    arrived = sorted(m[4] for m in pictures)
    # Paced, the first second is left out: there the decoder starts, and every buffer is touched for the first time.
    since = arrived[0] + (1_000_000_000 if seconds is not None else 0)
    latency = sorted(m[5] / 1e6 for m in messages if m[4] >= since)
    if not latency:
        raise EngineError("the run was too short to measure; give it more frames or seconds")
    return {
        "frames": outcome.published,
        "fps": round((len(arrived) - 1) / ((arrived[-1] - arrived[0]) / 1e9), 1),
        "cpu_ms_per_frame": round(1000 * cpu / outcome.published, 2),
        "latency_ms": {
            f"p{p}": round(latency[min(len(latency) - 1, len(latency) * p // 100)], 1) for p in (50, 95, 99)
        },
        "dropped": {name: s["dropped"] for name, s in outcome.streams.items()},
    }


def _input_size(config: Config, engine: Engine) -> tuple[int, int]:
    """What the first source is analysed at, so that nothing is compiled while the clock runs."""
    frames: Generator[Frame] = source_frames(config.streams[0].parsed, ReadOptions())
    with closing(frames):
        picture = next(frames).picture
    return engine.size_for(picture.width, picture.height)


def _baseline(config: Config) -> float:
    """FPS of the hand-written loop on the first source's file."""
    source = config.streams[0].parsed
    engine = engine_of(config)
    if source.kind != "file":
        raise ConfigError("--baseline: the hand-written loop reads files only")
    loop = Baseline(engine.bundle, source.location, _input_size(config, engine), config.publish.jpeg_quality)
    cv2.setNumThreads(-1)  # its own defaults, as a first version would run
    try:
        with sink(loop.open()) as subscriber:
            loop.run(1_000_000, loop.wait_for_subscriber)
            loop.close()
            arrived: list[int] = sorted(m[4] for m in subscriber.report()["messages"] if m[0] == "frame")
    finally:
        cv2.setNumThreads(1)
    return round((len(arrived) - 1) / ((arrived[-1] - arrived[0]) / 1e9), 1)


def _every_frame(stream: StreamConfig) -> StreamConfig:
    """A rate that skips frames is none of the engine; who says so in the configuration gets it all the same."""
    if stream.motion.skip != "auto":
        return stream
    return stream.model_copy(update={"motion": stream.motion.model_copy(update={"skip": False})})


def text(report: dict[str, Any]) -> str:
    """The report for people."""
    stages = "   ".join(f"{stage} {ms:.2f}" for stage, ms in report["stages_ms"].items())
    latency = "   ".join(f"{name} {ms:.1f}" for name, ms in report["latency_ms"].items())
    lines = [
        f"{report['streams']} x {report['source']}, {report['frames']} frames, {report['cores']} cores",
        "decode, overlay and JPEG are on; overlay pictures and label maps are subscribed to",
        f"stages alone (CPU ms a frame)   {stages}   sum {sum(report['stages_ms'].values()):.2f}",
        f"not in the sum: the motion gate of live streams {report['gate_ms']:.2f}; here every frame is analysed",
        f"pipeline   {report['fps']:.1f} FPS of {report['bound_fps']:.1f} possible: "
        f"{'load' if report['paced'] else 'efficiency'} {report['efficiency']:.2f}",
        f"           {report['cpu_ms_per_frame']:.2f} CPU ms a frame; rounds {report['fps_rounds']} FPS",
        f"latency, capture to message (ms)   {latency}",
    ]
    if "ratio" in report:
        lines.append(
            f"hand-written loop   {report['baseline_fps']:.1f} FPS (rounds {report['baseline_rounds']}):"
            f" the pipeline is {report['ratio']:.2f}x as fast"
        )
    return "\n".join(lines)
