"""A file's frames one after the other, without threads: for evaluation and for measuring single stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path

from streamseg.config import MotionConfig, StreamConfig
from streamseg.ingest.reader import media_time, open_capture
from streamseg.ingest.scene import SceneWatch
from streamseg.types import Frame


def file_frames(source: Path | str, *, skip_still: bool = False) -> Generator[Frame]:
    """Every frame of a file, or of another source, as the daemon's ingest would deliver it. Raises ConfigError,
    SourceError."""
    # Not validated: a path is taken as it is, and one that is not there is told without the words of a configuration.
    yield from stream_frames(
        StreamConfig.model_construct(id="file", source=str(source), motion=MotionConfig(skip=skip_still))
    )


def stream_frames(stream: StreamConfig, gpu: int | None = None) -> Generator[Frame]:
    """The same of a stream as it is configured; but for `fps`, none are left out."""
    capture = open_capture(stream, threading.Event(), gpu)
    media_ns, state_key, scene = -1, 0, SceneWatch()
    try:
        for number, captured in enumerate(capture):
            if captured.picture is None:
                continue
            media_ns = media_time(captured, capture, media_ns)
            small = captured.picture.thumbnail()
            state_key += scene.look(small, media_ns) is not None
            yield Frame(
                stream=stream.name,
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
                thumbnail=small if stream.motion.skip is True else None,
            )
    finally:
        capture.close()
