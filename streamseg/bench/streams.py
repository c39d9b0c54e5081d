"""`streamseg bench streams`: the most cameras that hold a stated p95 latency, each step a run of the real pipeline in a
process of its own. Main thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamseg.bench import clip, load, machine, trial
from streamseg.config import Config, validated
from streamseg.engine.bundle import find
from streamseg.errors import ConfigError, EngineError
from streamseg.source import Source, parse
from streamseg.synthetic import StreetSpec

Say = Callable[[str], None]
KINDS = ("frame", "picture", "labels")
MARGIN_S = 20.0
"""Of the clip, beyond what is measured: cameras that are slow to start must not run out of it."""
PER_SUBSCRIBER = 32
"""Cameras that one subscribing process takes: 250 MB/s of 1080p25 pictures; it must not be what is measured."""
SHORT = 0.98
"""Of the frames that were due at least so many must come; a camera's first and last one may fall outside."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`fps` None: the source's own rate (25 of the synthetic street). `kinds` are subscribed to, of `watched` cameras
    (None: all). `motion_skip` lets frames on which nothing moved go without inference: that is not what is asked."""

    source: str
    engine: str = "street-edge"
    p95_ms: float = 100.0
    fps: float | None = None
    limit: int = 512
    seconds: float = 10.0
    warm_up_s: float = 3.0
    kinds: tuple[str, ...] = ("frame", "labels")
    watched: int | None = None
    motion_skip: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """`why` it does not hold, None if it does; `trial` None where the pipeline could not even run."""

    cameras: int
    why: str | None
    trial: trial.Trial | None
    gpu: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Feed:
    """What every camera shows: `source`, as a configuration names it; `fps` None where only the camera knows."""

    source: str
    shown: str
    fps: float | None
    paced: bool


def run(plan: Plan, say: Say) -> dict[str, Any]:
    """The report as `--json` prints it; "cameras" 0 where not even one holds. Raises StreamsegError."""
    if unknown := [kind for kind in plan.kinds if kind not in KINDS]:
        raise ConfigError(f"--subscribe: {unknown[0]!r} is none of {', '.join(KINDS)}; latency is measured there")
    find(plan.engine)  # a slip is told before the street is drawn
    facts = machine.facts()
    idle_mb = sum(gpu["memory_used_mb"] or 0 for gpu in facts["gpus"])
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="streamseg-bench-") as folder:
        feed = _feed(plan, Path(folder), say)

        def holds(cameras: int) -> bool:
            say(f"{cameras} camera{'s' if cameras > 1 else ''} for {plan.seconds:g} s …")
            steps.append(_step(plan, feed, cameras))
            say(f"    {steps[-1].why or 'holds'}")
            return steps[-1].why is None

        skips = any(stream.motion.skip for stream in _config(plan, feed, 1).streams)  # --set may ask for it too
        best = _most(holds, plan.limit)
    alone = next((s.trial.load.rss_mb for s in steps if s.cameras == 1 and s.trial), None)
    rows = [_row(step, facts["cores"], alone, idle_mb) for step in sorted(steps, key=lambda s: s.cameras)]
    found = next((row for row in rows if row["cameras"] == best), {})
    first = next(s.trial for s in steps if s.trial)
    return {
        "machine": facts,
        "source": feed.shown,
        "engine": first.engine,
        "p95_limit_ms": plan.p95_ms,
        "seconds": plan.seconds,
        "warm_up_s": plan.warm_up_s,
        "decode": True,
        "overlay": "frame" in plan.kinds,
        "jpeg": "frame" in plan.kinds or "picture" in plan.kinds,
        "subscribed": list(plan.kinds),
        "watched": plan.watched or "all",
        "motion_skip": skips,
        "cameras": best,
        "fps": found.get("fps"),
        "p95_ms": found.get("p95_ms"),
        "steps": rows,
    }


def _most(holds: Callable[[int], bool], limit: int) -> int:
    """The largest n of 1 … `limit` for which `holds(n)`, where what holds for n holds for fewer; 0 if not even 1 does.

    Doubles until one does not hold, then bisects: never asks for the same n twice, and 2 log2(n) + 2 times at most.
    """
    good, bad = 0, limit + 1
    while bad - good > 1:
        n = (good + bad) // 2 if bad <= limit else min(max(1, 2 * good), limit)
        if holds(n):
            good = n
        else:
            bad = n
    return good


def fault(seen: trial.Trial, due: float | None, p95_ms: float) -> str | None:
    """Why a step does not hold; `due` frames should have come from the cameras that are watched, None if unknown."""
    if dropped := seen.dropped:
        return "dropped " + ", ".join(f"{count} ({reason})" for reason, count in dropped.items())
    if seen.lost:
        return f"{seen.lost} messages lost on the way to the subscriber"
    if due is not None and seen.frames < due:
        return f"too slow: {seen.frames} frames of at least {due:.0f} came"
    if seen.latency_ms["p95"] > p95_ms:
        return f"p95 is {seen.latency_ms['p95']:.1f} ms"
    return None


def _feed(plan: Plan, folder: Path, say: Say) -> Feed:
    asked = "synthetic://street?size=1920x1080" if plan.source == "synthetic" else plan.source
    source = parse(asked)
    lasts = plan.seconds + plan.warm_up_s + MARGIN_S
    if source.street is not None:
        spec: StreetSpec = replace(source.street, fps=plan.fps or source.street.fps)
        say(f"drawing {clip.STREET_SECONDS} s of the street at {spec.width}x{spec.height}")
        drawn = folder / "street.mp4"
        clip.street(spec, drawn)
        made = clip.lasting(Source("file", str(drawn), source.shown), lasts, folder)
        return Feed(str(made.path), f"the synthetic street, {made}", made.fps, paced=True)
    if source.kind == "file":
        made = clip.lasting(source, lasts, folder, plan.fps)
        return Feed(str(made.path), f"{source.shown}: {made}", made.fps, paced=True)
    if plan.fps:
        raise ConfigError(f"--fps: {source.shown} comes at its own rate")
    return Feed(asked, source.shown, None, paced=False)


def _config(plan: Plan, feed: Feed, cameras: int) -> Config:
    """Cameras that are not in step: each begins at another moment of the first second."""
    streams: list[dict[str, Any]] = []
    for index in range(cameras):
        stream: dict[str, Any] = {"id": f"camera{index}", "source": feed.source, "motion": {"skip": plan.motion_skip}}
        if feed.paced:
            stream |= {"pace": "realtime", "start_s": round(index * 0.618034 % 1, 3)}
        streams.append(stream)
    publish = {"bind": "tcp://127.0.0.1:*"}
    return validated({"streams": streams, "engine": {"name": plan.engine}, "publish": publish}, plan.overrides)


def _step(plan: Plan, feed: Feed, cameras: int) -> Step:
    config = _config(plan, feed, cameras)
    watched = min(plan.watched or cameras, cameras)
    names = [stream.name for stream in config.streams[:watched]]
    groups = [names[at : at + PER_SUBSCRIBER] for at in range(0, watched, PER_SUBSCRIBER)]
    topics = [[f"{kind}/{name}/" for kind in plan.kinds for name in group] for group in groups]
    with machine.watching() as gpu:
        try:
            seen = trial.alone(config, plan.seconds, warm_up_s=plan.warm_up_s, subscribers=topics)
        except EngineError as error:
            if cameras == 1:
                raise
            return Step(cameras, f"did not run: {error}", None, gpu.report())
    due = None
    if feed.fps is not None:
        rates = [min(feed.fps, stream.fps or feed.fps) for stream in config.streams[:watched]]
        due = SHORT * sum(rates) * seen.load.seconds - watched
    return Step(cameras, fault(seen, due, plan.p95_ms), seen, gpu.report())


def _row(step: Step, cores: int, alone_mb: float | None, idle_mb: float) -> dict[str, Any]:
    """One step of the report. No rate where frames were lost; memory a stream is what came on top of one camera's."""
    seen, gpu = step.trial, step.gpu
    if seen is None:
        return {"cameras": step.cameras, "holds": False, "why": step.why}
    more = step.cameras - 1
    complete = not seen.dropped and not seen.lost
    gpu_mb = gpu["memory_used_mb"] - idle_mb if gpu.get("memory_used_mb") else None
    return {
        "cameras": step.cameras,
        "holds": step.why is None,
        "why": step.why,
        "frames": seen.frames,
        "fps": seen.fps if complete else None,
        **{f"{name}_ms": ms for name, ms in seen.latency_ms.items()},
        "worst_camera_p95_ms": seen.worst_p95_ms,
        "dropped": seen.dropped,
        "lost": seen.lost,
        "cpu_cores": round(seen.load.cores, 2),
        "cpu_stages": seen.load.stages,
        "cpu_busiest_thread": seen.load.busiest,
        "machine_busy": seen.load.machine,
        "rss_mb": seen.load.rss_mb,
        "rss_mb_a_stream": round((seen.load.rss_mb - alone_mb) / more, 1) if more and alone_mb else None,
        "gpu": gpu,
        "gpu_mb": gpu_mb,
        "limit": load.limit(seen.load, cores, gpu.get("busy_percent"), gpu.get("decoder_percent")),
    }


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a step."""
    rows = []
    for row in report["steps"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in row.get("dropped", {}).items()) or "0"
        columns = ("fps", "p50_ms", "p95_ms", "p99_ms", "worst_camera_p95_ms")
        rows.append(
            {"cameras": row["cameras"]}
            | {name.removesuffix("_ms").replace("_", " "): row.get(name) for name in columns}
            | {"dropped": dropped, "CPU cores": row.get("cpu_cores"), "RSS MB": row.get("rss_mb")}
            | {"MB a stream": row.get("rss_mb_a_stream"), "GPU MB": row.get("gpu_mb"), "limit": row.get("limit")}
            | {"holds": "yes" if row["holds"] else f"no: {row['why']}"}
        )
    return rows


def text(report: dict[str, Any]) -> str:
    """What stands above the table."""
    on = {True: "on", False: "off"}
    topics = " and ".join(report["subscribed"])
    watched = "every camera" if report["watched"] == "all" else f"{report['watched']} of the cameras"
    return "\n".join(
        [
            machine.text(report["machine"]),
            f"each camera: {report['source']}; they are not in step",
            trial.shown(report["engine"]),
            f"decode on, overlay {on[report['overlay']]}, JPEG {on[report['jpeg']]}, motion skip"
            f" {on[report['motion_skip']]}; {topics} of {watched} subscribed to, {PER_SUBSCRIBER} by one process",
            f"ms from a packet's arrival to the message at the subscriber, over {report['seconds']:g} s after"
            f" {report['warm_up_s']:g} s of warming up; CPU and memory without the subscriber's",
        ]
    )


def verdict(report: dict[str, Any]) -> str:
    """The answer in one line."""
    limit = f"p95 of {report['p95_limit_ms']:g} ms"
    more = next((row for row in report["steps"] if row["cameras"] > report["cameras"] and not row["holds"]), None)
    fails = f"; {more['cameras']} do not: {more['why']}" if more else f"; no more than {report['cameras']} were tried"
    if not report["cameras"]:
        return f"not one camera holds a {limit}: {report['steps'][0]['why']}"
    cameras = f"{report['cameras']} camera{'s' if report['cameras'] > 1 else ''}"
    return f"{cameras} hold{'s' if report['cameras'] == 1 else ''} a {limit}: {report['fps']} FPS in all{fails}"
