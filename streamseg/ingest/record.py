"""Writes pictures into an H.264 file, the reverse of reading one. Runs in the thread that calls it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av

from streamseg.errors import ConfigError
from streamseg.types import U8

CLOCK = 90_000
"""Ticks a second of the timestamps, as in MPEG: exact enough for every camera's rate."""


class Recorder:
    """`with Recorder(path) as recorder: recorder.write(rgb, media_ns)`. The first picture sets the size, which must be
    even both ways; timestamps must rise. The file is whole once it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Recorder:
        """Raises ConfigError when the file cannot be written, or its name tells no container that is known."""
        try:
            self._container = av.open(str(self._path), "w")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path}: cannot be written as a video ({error}); name it .mp4 or .mkv") from None
        try:  # PyAV does so with the first picture only, and its error names no file
            self._path.open("wb").close()
        except OSError as error:
            self._container.close()
            raise ConfigError(f"{self._path}: cannot be written: {error.strerror}") from None
        return self

    def write(self, rgb: U8, media_ns: int) -> None:
        """`rgb` u8 [H, W, 3]; `media_ns` its time from the start of the clip."""
        size = (rgb.shape[1], rgb.shape[0])
        if self._size is None:
            self._start(size)
        if size != self._size:
            raise ValueError(f"the video is {self._size}, and this picture is {size}")
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = media_ns * CLOCK // 1_000_000_000, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(frame))

    def _start(self, size: tuple[int, int]) -> None:
        self._stream = self._container.add_stream("libx264", rate=25)  # nominal: every picture has its own time
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._stream.width, self._stream.height, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, CLOCK)
        self._size = size

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._size is not None and kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
