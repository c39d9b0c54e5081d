"""Each stage of a frame's way alone, on one thread, over the same frames: what the pipeline could do at best."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice

from streamseg import overlay
from streamseg.bench.subscriber import TOPICS, sink
from streamseg.config import Config
from streamseg.encode import Encoder, jpeg
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError
from streamseg.ingest.frames import source_frames
from streamseg.ingest.reader import ReadOptions
from streamseg.ingest.scene import SceneWatch
from streamseg.motion import MotionGate
from streamseg.publish.outlet import Outlet
from streamseg.types import Frame

CHUNK = 8
"""Frames that one stage works on before the next one does."""


def measure(config: Config, engine: Engine, frames: int) -> dict[str, float]:
    """CPU milliseconds a frame of every stage: decode, watch, gate, convert, infer, overlay, jpeg, mask, publish.

    CPU time is the whole process's, so that a library's own worker threads count too. The first chunk warms up.
    """
    stream = config.streams[0]
    source: Generator[Frame] = source_frames(stream.parsed, ReadOptions(decode_threads=1), stream.name)
    stages = _Stages(config, engine)
    done = -CHUNK
    with closing(source), stages.connected():
        while done < frames:
            if done == 0:
                stages.clock.seconds.clear()
            with stages.clock("decode"):
                chunk = list(islice(source, CHUNK))
            if not chunk:
                break
            stages.run(chunk)
            done += len(chunk)
    if done <= 0:
        raise ConfigError(f"{stream.parsed.shown}: too short to measure; give at least {2 * CHUNK} frames")
    spent = stages.clock.seconds
    spent["infer"] -= spent["convert"]  # the engine converts too, and that was measured alone;
    spent["decode"] -= spent["watch"]  # as was what ingest does with every decoded picture
    return {stage: 1000 * seconds / done for stage, seconds in spent.items()}


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
            try:
                with sink(endpoint):
                    waiting = len(TOPICS)
                    while waiting:
                        self._outlet.poll(10)
                        waiting -= len(list(self._outlet.incoming()))
                    yield
            finally:
                self._outlet.close(0)

    def run(self, frames: Sequence[Frame]) -> None:
        engine = self._engine
        plan = engine.plan(frames[0].stream, frames[0].picture)
        engine.program(plan.tile)
        with self.clock("watch"):
            small = [frame.picture.thumbnail() for frame in frames]
            for frame, seen in zip(frames, small, strict=True):
                self._scene.look(seen, frame.media_ns)
        with self.clock("gate"):
            for frame, seen in zip(frames, small, strict=True):
                self._gate.reuse(replace(frame, thumbnail=seen))
        with self.clock("convert"):
            for frame in frames:
                plan.rgb(frame.picture)
        with self.clock("infer"):
            results = [engine.run([frame])[0] for frame in frames]
            for result in results:
                _ = result.labels  # made when first asked for; part of inference wherever it runs
        for result in results:  # one at a time, as in the pipeline: eight pictures of 1080p do not fit into a cache
            planes = result.frame.picture.planes()
            with self.clock("overlay"):
                drawn = overlay.annotate(planes, result.labels, engine.classes, undrawn=self._undrawn, roi=result.roi)
            with self.clock("jpeg"):
                picture = jpeg(drawn, self._quality)
            with self.clock("mask"):
                message = next(self._encoder.messages(result, lambda topic: topic.startswith("labels/")))
            with self.clock("publish"):
                self._outlet.send(message.topic, message.fields, message.payload, retry=lambda: True)
                self._outlet.send(f"frame/{result.frame.stream}/", message.fields, picture, retry=lambda: True)


class _Stopwatch:
    """`with clock("decode"):` adds the process's CPU seconds to that stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - begin
