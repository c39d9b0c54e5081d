"""`streamseg bench pipeline`: the real pipeline against the sum of its stages, and against the hand-written loop."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from streamseg.bench import baseline, machine, trial
from streamseg.bench.baseline import Network, OnnxNetwork
from streamseg.bench.stages import APART, bound_ms, measure
from streamseg.config import Config, StreamConfig, validated
from streamseg.engine.bundle import find
from streamseg.engine.machine import gpu_names
from streamseg.errors import ConfigError, EngineError
from streamseg.pipeline import engine_of

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


@machine.cv2_threads(1)  # as in the daemon
def run(plan: Plan, say: Say) -> dict[str, Any]:
    """The report as `--json` prints it. Refuses to report a rate while frames were dropped. Raises StreamsegError."""
    told = machine.facts()
    config = _config(plan)
    say("measuring each stage alone, on one thread")
    config = config.model_copy(update={"streams": tuple(map(_every_frame, config.streams))})
    stages, stage_frames = measure(config, engine_of(config), plan.stage_frames)
    cores = told["cores"]
    networks = _networks(config) if plan.baseline else []
    runs: list[dict[str, Any]] = []
    loops: dict[str, list[float]] = {}
    watched: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}: the pipeline")
        with machine.watching() as gpu:
            runs.append(_pipeline(config, plan.seconds if plan.paced else None))
        watched.append(gpu.report())
        for network in networks:
            say(f"round {number + 1} of {plan.rounds}: the hand-written loop, {network.name}")
            loops.setdefault(network.name, []).append(_baseline(config, network))
    best = sorted(runs, key=lambda r: r["fps"])[(len(runs) - 1) // 2]  # of an even number the slower one
    bound = 1000 * cores / bound_ms(stages)
    report: dict[str, Any] = {
        "machine": told,
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
        "gate_ms": stages["gate"].cpu_ms,  # told, but no part of the bound: every frame is analysed here
        "stage_frames": stage_frames,
        "stages_ms": {name: stage.cpu_ms for name, stage in stages.items() if name not in APART},
        "latency_ms": best["latency_ms"],
        "dropped": best["dropped"],  # by the analysis rate alone, where that was asked for
        "motion_skip": any(stream.motion.skip for stream in config.streams),
        "engine": best["engine"],
        "gpu": watched[runs.index(best)],
        "decode": True,
        "overlay": True,
        "jpeg": True,
    }
    report["baselines"] = {
        name: {"fps": (fps := statistics.median(each)), "rounds": each, "ratio": round(best["fps"] / fps, 2)}
        for name, each in loops.items()
    }
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
    """One run of the pipeline: FPS as the subscriber saw it, CPU, latency. Raises EngineError where frames are lost."""
    seen = trial.run(config, seconds)
    if seen.dropped or seen.lost:
        reasons = ", ".join(f"{count} {reason}" for reason, count in seen.dropped.items()) or "0"
        raise EngineError(
            f"no rate is reported while frames are lost: dropped: {reasons}; {seen.lost} messages did not arrive; "
            "`streamseg bench streams` finds what this machine can do"
        )
    return {
        "frames": seen.frames,
        "fps": seen.fps,
        "engine": seen.engine,
        "cpu_ms_per_frame": round(1000 * seen.load.cores * seen.load.seconds / seen.frames, 2),
        "latency_ms": seen.latency_ms,
        "dropped": seen.load.dropped,
    }


def _networks(config: Config) -> list[Network]:
    """What the hand-written loops run: ONNX Runtime, and torch where it has a GPU. Raises ConfigError for none."""
    source, engine = config.streams[0].parsed, engine_of(config)
    if source.kind != "file":
        raise ConfigError("--baseline: the hand-written loop reads files only; `streamseg bench clip` makes one")
    size = trial.input_size(config, engine)
    found: list[Network] = [OnnxNetwork(engine.bundle, size)] if find_spec("onnxruntime") else []
    if gpu_names() and find_spec("torch"):
        from streamseg.bench.torch_network import TorchNetwork, usable

        if usable() and (engine.bundle.path / "weights.pt").is_file():
            found.append(TorchNetwork(engine.bundle, size))
    if not found:
        raise ConfigError("--baseline: the hand-written loop needs onnxruntime; pip install 'streamseg[onnxruntime]'")
    return found


@machine.cv2_threads(-1)  # as a first version would run
def _baseline(config: Config, network: Network) -> float:
    """FPS of a hand-written loop on the first source's file."""
    bundle, location = find(config.engine.name), config.streams[0].parsed.location
    return baseline.fps(bundle, location, network, config.publish.jpeg_quality)


def _every_frame(stream: StreamConfig) -> StreamConfig:
    """A rate that skips frames is none of the engine; who says so in the configuration gets it all the same."""
    if stream.motion.skip != "auto":
        return stream
    return stream.model_copy(update={"motion": stream.motion.model_copy(update={"skip": False})})


def text(report: dict[str, Any]) -> str:
    """The report for people."""
    stages = "   ".join(f"{stage} {ms:.2f}" for stage, ms in report["stages_ms"].items())
    stages += f"   sum {sum(report['stages_ms'].values()):.2f}"
    latency = "   ".join(f"{name} {ms:.1f}" for name, ms in report["latency_ms"].items())
    kept = "frames on which nothing moved go without inference" if report["motion_skip"] else "every frame is analysed"
    if left_out := sum(report["dropped"].values()):
        kept += f", but for {left_out} that the analysis rate left out"
    lines = [
        machine.text(report["machine"]),
        f"{report['streams']} x {report['source']}, {report['frames']} frames, {report['cores']} cores",
        trial.shown(report["engine"]),
        "decode, overlay and JPEG are on; overlay pictures and label maps are subscribed to",
        f"stages alone (CPU ms a frame, of {report['stage_frames']})   {stages}",
        f"not in the sum: the motion gate of live streams {report['gate_ms']:.2f}; here {kept}",
        f"pipeline   {report['fps']:.1f} FPS of {report['bound_fps']:.1f} possible: "
        f"{'load' if report['paced'] else 'efficiency'} {report['efficiency']:.2f}",
        f"           {report['cpu_ms_per_frame']:.2f} CPU ms a frame; rounds {report['fps_rounds']} FPS",
        f"latency, capture to message (ms)   {latency}",
    ]
    for name, loop in report["baselines"].items():
        lines.append(
            f"hand-written loop, {name}   {loop['fps']:.1f} FPS (rounds {loop['rounds']}):"
            f" the pipeline is {loop['ratio']:.2f}x as fast"
        )
    return "\n".join(lines)
