"""A file's frames one after the other, without threads: for evaluation and for measuring single stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path

from streamseg.ingest.reader import ReadOptions, media_time, open_capture
from streamseg.ingest.scene import SceneWatch
from streamseg.source import Source, parse
from streamseg.types import Frame


def file_frames(path: Path, *, skip_still: bool = False) -> Generator[Frame]:
    """Every frame of a file, as the daemon's ingest would deliver it. Raises ConfigError, SourceError."""
    yield from source_frames(parse(str(path)), ReadOptions(skip_still=skip_still))


def source_frames(source: Source, options: ReadOptions, stream: str = "file") -> Generator[Frame]:
    capture = open_capture(source, options, threading.Event())
    media_ns, state_key, scene = -1, 0, SceneWatch()
    try:
        for number, captured in enumerate(capture):
            if captured.picture is None:
                continue
            media_ns = media_time(captured, capture, media_ns)
            small = captured.picture.thumbnail()
            state_key += scene.look(small, media_ns) is not None
            yield Frame(
                stream=stream,
                epoch=0,
                number=number,
                pts_ns=captured.pts_ns,
                captured_ns=captured.captured_ns,
                clock=captured.clock,
                decode_us=captured.decode_us,
                ready_ns=time.monotonic_ns(),
                media_ns=media_ns,
                state_key=state_key,
                picture=captured.picture,
                thumbnail=small if options.skip_still else None,
            )
    finally:
        capture.close()
