"""Each stage of a frame's way alone, on one thread, over the same frames: what the pipeline could do at best."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

from streamseg import overlay
from streamseg.config import Config
from streamseg.encode import Encoder, jpeg
from streamseg.engine.engine import Engine
from streamseg.ingest.frames import source_frames
from streamseg.ingest.reader import ReadOptions
from streamseg.publish import Publisher
from streamseg.types import Frame

CHUNK = 32
"""Decoded frames held at a time: 1080p planes are 3 MB each."""


def measure(config: Config, engine: Engine, publisher: Publisher, frames: int) -> dict[str, float]:
    """CPU milliseconds a frame of every stage: decode, convert, infer, overlay, jpeg, mask, publish.

    CPU time is the whole process's, so that a library's own worker threads count too. `publisher` is open and has a
    subscriber to everything measured; its share is what sending costs beyond the encoding measured before.
    """
    stream = config.streams[0]
    source: Generator[Frame] = source_frames(stream.parsed, ReadOptions(decode_threads=1), stream.name)
    clock = _Stopwatch()
    done = 0
    with closing(source):
        while done < frames:
            with clock("decode"):
                chunk = list(islice(source, min(CHUNK, frames - done)))
            if not chunk:
                break
            _chunk(chunk, engine, publisher, config, clock)
            done += len(chunk)
    # Inference includes its own conversion, and publishing its own encoding: what was measured alone comes off.
    spent = clock.seconds
    spent["infer"] -= spent["convert"]
    spent["publish"] -= spent["overlay"] + spent["jpeg"] + spent["mask"]
    return {stage: 1000 * max(0.0, seconds) / max(1, done) for stage, seconds in spent.items()}


def _chunk(frames: Sequence[Frame], engine: Engine, publisher: Publisher, config: Config, clock: _Stopwatch) -> None:
    size = engine.size_for(frames[0].picture.width, frames[0].picture.height)
    engine.program(size)
    with clock("convert"):
        for frame in frames:
            frame.picture.rgb(*size)
    with clock("infer"):
        results = [engine.run([frame])[0] for frame in frames]
    with clock("overlay"):
        drawn = [overlay.annotate(r.frame.picture.planes(), r.labels, engine.classes) for r in results]
    with clock("jpeg"):
        for planes in drawn:
            jpeg(planes, config.publish.jpeg_quality)
    encoder = Encoder(engine.classes, encoding=config.publish.encoding, jpeg_quality=config.publish.jpeg_quality)
    with clock("mask"):
        for result in results:
            list(encoder.messages(result, lambda topic: topic.startswith("labels/")))
    sent = sum(publisher.counters.results.values())
    with clock("publish"):
        for result in results:
            publisher.publish(result)
        # The hand-over is asynchronous: done when the publisher's own thread has sent the last one.
        while sum(publisher.counters.results.values()) < sent + len(results):
            time.sleep(0.0005)


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
