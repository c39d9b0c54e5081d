"""What `streamseg check` finds out: whether each camera answers and delivers a picture. A thread a stream, briefly."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from streamseg.config import Config, StreamConfig
from streamseg.errors import SourceError, SourceTimeout
from streamseg.ingest.reader import open_capture, read_options
from streamseg.pipeline import engine_of

FIRST_PICTURE_SECONDS = 10.0
"""A camera with one key frame every few seconds needs that long to show its first picture."""


@dataclass(frozen=True, slots=True)
class Report:
    """One stream's verdict: `reason` is "ok" or a SourceError's reason; `detail` says what to do, or what came."""

    stream: str
    ok: bool
    reason: str
    detail: str


def engine(config: Config) -> str:
    """name@digest of the engine, and the backend that can run it here. Raises EngineNotFound, EngineError."""
    chosen = engine_of(config)
    chosen.prepare()
    return f"{chosen.bundle.identity} on {chosen.backend}"


def streams(config: Config) -> list[Report]:
    """Probes every stream, at most 16 at a time."""
    with ThreadPoolExecutor(min(16, len(config.streams))) as pool:
        return list(pool.map(_probe, config.streams))


def _probe(stream: StreamConfig) -> Report:
    late = threading.Event()
    begin = time.monotonic()
    try:
        capture = open_capture(stream.parsed, read_options(stream), late)
        timer = threading.Timer(FIRST_PICTURE_SECONDS, late.set)
        timer.start()
        try:
            picture = next((captured.picture for captured in capture if captured.picture), None)
        finally:
            timer.cancel()
            timer.join()
            capture.close()
        if picture is None:
            raise SourceTimeout(f"{stream.parsed.shown}: connected, but no picture in {FIRST_PICTURE_SECONDS:.0f} s")
    except SourceError as error:
        return Report(stream.name, False, error.reason, str(error))
    took = time.monotonic() - begin
    return Report(
        stream.name, True, "ok", f"{picture.width}x{picture.height}, {capture.details}, first picture in {took:.2f} s"
    )
