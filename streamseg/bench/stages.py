"""Each stage of a frame's way alone, on one thread, over the same frames: what the pipeline could do at best."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from streamseg import overlay
from streamseg.bench import machine
from streamseg.bench.percentiles import percentiles
from streamseg.bench.sink import TOPICS, sink
from streamseg.bench.trial import input_size
from streamseg.config import Config, validated
from streamseg.encode import Encoder, jpeg
from streamseg.engine.backends import ON_GPU
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.ingest.frames import stream_frames
from streamseg.ingest.scene import SceneWatch
from streamseg.motion import MotionGate
from streamseg.pipeline import engine_of
from streamseg.placement import here, place
from streamseg.publish.outlet import Outlet
from streamseg.types import Frame, Result

CHUNK = 8
"""Frames that one stage works on before the next one does."""
APART = ("gate", "mask")
"""Measured, but not on the way of every frame to a subscriber of pictures and label maps."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Milliseconds a frame: `cpu_ms` the mean of the whole process's CPU time, so that a library's own threads count
    too; `wall_ms` p50, p95 and p99 of the time that passed."""

    cpu_ms: float
    wall_ms: dict[str, float]


def measure(config: Config, engine: Engine, frames: int) -> tuple[dict[str, Stage], int]:
    """Each stage alone, and over how many frames, fewer than asked for where the source ends before. In the order of a
    frame's way: decode, watch (thumbnail, cuts), gate (motion), scale (to the engine's input), engine, labels (where
    they are made apart), overlay, jpeg, label map (encoding), mask (of one class), publish. The first chunk warms up.
    Raises StreamsegError."""
    stream = config.streams[0]
    where = place([stream.name], config.engine.device, config.engine.backend, here)
    at_once = stream.model_copy(update={"decode_threads": 1, "pace": "max"})
    source: Generator[Frame] = stream_frames(at_once, where.decoder(stream.name))
    stages = _Stages(config, engine)
    done = -CHUNK
    with closing(source), stages.connected():
        while done < frames:
            if done == 0:
                stages.clock.forget()
            chunk: list[Frame] = []
            while len(chunk) < min(CHUNK, frames - done):
                with stages.clock("decode"):
                    frame = next(source, None)
                if frame is None:
                    break
                chunk.append(frame)
            if not chunk:
                break
            stages.run(chunk)
            done += len(chunk)
    if done <= 0:
        raise ConfigError(f"{stream.parsed.shown}: too short to measure; give at least {2 * CHUNK} frames")
    return stages.clock.told(), done


def bound_ms(stages: Mapping[str, Stage]) -> float:
    """CPU milliseconds of all that a frame needs on its way."""
    return sum(stage.cpu_ms for name, stage in stages.items() if name not in APART)


class _Stages:
    """The stages after decoding, each over a whole chunk, on the caller's thread."""

    def __init__(self, config: Config, engine: Engine) -> None:
        publish = config.publish
        self.clock = _Stopwatch()
        self._engine = engine
        self._quality = publish.jpeg_quality
        self._undrawn = engine.bundle.undrawn
        self._encoder = Encoder(
            engine.classes, encoding=publish.encoding, jpeg_quality=publish.jpeg_quality, undrawn=self._undrawn
        )
        self._outlet = Outlet(publish)
        self._scene, self._gate = SceneWatch(), MotionGate(refresh_s=0)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """With a subscriber to everything that is sent."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            endpoint = self._outlet.open(ours)
            with sink(endpoint):
                try:
                    waiting = len(TOPICS)
                    while waiting:
                        self._outlet.poll(10)
                        waiting -= len(list(self._outlet.incoming()))
                    yield
                finally:
                    # Before the subscriber is killed: where a connection breaks off within a message while its socket
                    # is being closed, libzmq 4.3.5 aborts (session_base.cpp:233, clean_pipes; seen on a busy machine).
                    self._outlet.close(0)

    def run(self, frames: Sequence[Frame]) -> None:
        engine = self._engine
        plan = engine.plan(frames[0].stream, frames[0].picture)
        engine.program(plan.tile)
        clock = self.clock
        for frame in frames:
            with clock("watch"):
                small = frame.picture.thumbnail()
                self._scene.look(small, frame.media_ns)
            with clock("gate"):
                self._gate.reuse(replace(frame, thumbnail=small))
        for frame in [frame for frame in frames if frame.picture.surface is None]:  # else the engine's kernel does it
            with clock("scale"):
                plan.scale_ahead(frame.picture)
        results = []
        for frame in frames:
            with clock("engine"):
                (result,) = engine.run([frame])
                if engine.backend in ON_GPU:  # labels are made there too, and are waited for
                    _ = result.labels
            results.append(result)
        for result in results if engine.backend not in ON_GPU else ():
            with clock("labels"):
                _ = result.labels  # made when first asked for
        for result in results:  # one at a time, as in the pipeline: eight pictures of 1080p do not fit into a cache
            self._out(result)

    def _out(self, result: Result) -> None:
        engine, clock, stream = self._engine, self.clock, result.frame.stream
        planes = result.frame.picture.planes()
        with clock("overlay"):
            drawn = overlay.annotate(planes, result.labels, engine.classes, undrawn=self._undrawn, roi=result.roi)
        with clock("jpeg"):
            picture = jpeg(drawn, self._quality)
        with clock("label map"):
            message = next(self._encoder.messages(result, lambda topic: topic.startswith("labels/")))
        with clock("mask"):
            next(self._encoder.messages(result, lambda topic: topic.startswith("mask/")))
        with clock("publish"):
            self._outlet.send(message.topic, message.fields, message.payload, retry=lambda: True)
            self._outlet.send(f"frame/{stream}/", message.fields, picture, retry=lambda: True)


class _Stopwatch:
    """`with clock("decode"):` takes one frame's time in that stage."""

    def __init__(self) -> None:
        self._times: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            spent = 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)
            self._times.setdefault(stage, []).append(spent)

    def forget(self) -> None:
        self._times.clear()

    def told(self) -> dict[str, Stage]:
        times = self._times
        # Ingest watches every picture that it decodes, and that was measured alone.
        pairs = zip(times["decode"], times["watch"], strict=False)
        times["decode"] = [(max(0.0, a - c), max(0.0, b - d)) for (a, b), (c, d) in pairs]
        return {
            stage: Stage(
                cpu_ms=round(sum(cpu for cpu, _ in each) / len(each), 3),
                wall_ms=percentiles([wall for _, wall in each], 2),
            )
            for stage, each in times.items()
        }


@machine.cv2_threads(1)  # as in the daemon
def run(source: str, engine: str, frames: int, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The report of `streamseg bench stages`. Raises StreamsegError."""
    told = machine.facts()
    if source.startswith("synthetic://") and "pace=" not in source:
        source += f"{'&' if '?' in source else '?'}pace=max"
    config = validated({"streams": [{"source": source}], "engine": {"name": engine}}, overrides)
    config = config.model_copy(update={"publish": config.publish.model_copy(update={"bind": "tcp://127.0.0.1:*"})})
    made = engine_of(config)
    with machine.watching() as gpu:
        stages, measured = measure(config, made, frames)
    size = "x".join(map(str, input_size(config, made)))
    return {
        "machine": told,
        "source": config.streams[0].parsed.shown,
        "engine": {"name": made.identity, "backend": made.backend, "precision": made.precision, "size": size},
        "frames": measured,
        "gpu": gpu.report(),
        "stages": {name: {"cpu_ms": each.cpu_ms} | each.wall_ms for name, each in stages.items()},
        "sum_cpu_ms": round(bound_ms(stages), 3),
    }


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a stage, milliseconds a frame."""
    apart = {name: "" if name not in APART else "not in the sum" for name in report["stages"]}
    return [
        {"stage": name} | {key: each[key] for key in ("p50", "p95", "p99", "cpu_ms")} | {"": apart[name]}
        for name, each in report["stages"].items()
    ]


def text(report: dict[str, Any]) -> str:
    """What stands above the table."""
    engine = report["engine"]
    where = "its labels and both transfers included" if engine["backend"] in ON_GPU else "labels apart"
    drawn = "; decode is the drawing of it" if report["source"].startswith("synthetic:") else ""
    return "\n".join(
        [
            machine.text(report["machine"]),
            f"{report['source']}, {report['frames']} frames, one after the other, on one thread{drawn}",
            f"{engine['name']} on {engine['backend']}, {engine['precision']}, {engine['size']}; {where}",
            "ms a frame that passed (p50, p95, p99), and CPU ms of all threads (mean):",
        ]
    )
