"""What `streamseg check` finds out: whether each camera answers and delivers a picture. A thread a stream, briefly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from streamseg.config import Config, StreamConfig
from streamseg.engine.engine import Engine
from streamseg.errors import EngineError, FrameError, SourceError, SourceTimeout
from streamseg.ingest.reader import open_capture
from streamseg.pipeline import view_of
from streamseg.types import Picture

FIRST_PICTURE_SECONDS = 10.0
"""A camera with one key frame every few seconds needs that long to show its first picture."""

AT_ONCE = 64
"""Cameras that are waited for; one more begins when one of them has answered."""


@dataclass(frozen=True, slots=True)
class Report:
    """One stream's verdict: `reason` is "ok", a SourceError's reason, or "engine" where that cannot take its pictures;
    `detail` says what to do, or what came."""

    stream: str
    ok: bool
    reason: str
    detail: str


def streams(config: Config, engine: Engine) -> Iterator[Report]:
    """Probes all streams, each in a thread of its own, as all but a few milliseconds of that is waiting, and whether
    `engine` takes their pictures; yields in the configuration's order."""
    with ThreadPoolExecutor(min(AT_ONCE, len(config.streams))) as pool:
        for stream, (report, picture) in zip(config.streams, pool.map(_probe, config.streams), strict=True):
            yield report if picture is None else _analysed(report, engine, stream, picture)


def _analysed(report: Report, engine: Engine, stream: StreamConfig, picture: Picture) -> Report:
    try:
        engine.program(engine.plan(stream.name, picture).tile)
    except (EngineError, FrameError) as error:
        return replace(report, ok=False, reason="engine", detail=str(error))
    return report


def _probe(stream: StreamConfig) -> tuple[Report, Picture | None]:
    """The picture of a stream that is as it should be."""
    late = threading.Event()
    begin = time.monotonic()
    try:
        capture = open_capture(stream, late)
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
        return Report(stream.name, False, error.reason, str(error)), None
    took = time.monotonic() - begin
    size = f"{picture.width}x{picture.height}{_part(stream, picture)}"
    return Report(stream.name, True, "ok", f"{size}, {capture.details}, first picture in {took:.2f} s"), picture


def _part(stream: StreamConfig, picture: Picture) -> str:
    """What of it is analysed, where that is not simply all."""
    view = view_of(stream)
    part = view.part(picture.width, picture.height)
    area = (part.width, part.height) if part else (picture.width, picture.height)
    told = f", of which {area[0]}x{area[1]} at {part.x},{part.y}" if part else ""
    if view.tiling:
        told += ", in {}x{} tiles".format(*view.tiling.counts(*area))
    return told
