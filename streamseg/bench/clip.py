"""What the cameras of a benchmark show: a file that lasts as long as it is needed, at a camera's rate. No thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from streamseg.errors import ConfigError, SourceError
from streamseg.source import Source
from streamseg.synthetic import Street, StreetSpec

STREET_SECONDS = 4
"""Of the synthetic street that are drawn, and then repeated: 30 ms a picture of 1080p."""
KEY_SECONDS = 2
BITS_A_PIXEL = 4e6 / (1920 * 1080 * 25)
"""4 Mbit/s at 1080p25, as cameras are set to: decoding costs by the bit."""
CONTAINERS = (".mp4", ".mkv", ".mov", ".ts", ".avi")
TICKS = 90_000
"""A second, in the time base of what is written."""


@dataclass(frozen=True, slots=True)
class Clip:
    """`frames` in all, at `fps`; `megabits` a second."""

    path: Path
    width: int
    height: int
    codec: str
    fps: float
    frames: int
    megabits: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.codec}, {self.fps:g} FPS, {self.megabits:.1f} Mbit/s"


def write(spec: StreetSpec, path: Path, seconds: float) -> None:
    """`street` to where a user wants it. Raises ConfigError where it cannot be written."""
    if path.suffix.lower() not in CONTAINERS:
        raise ConfigError(f"{path}: a video's name is wanted, such as street.mp4 ({', '.join(CONTAINERS)})")
    try:
        street(spec, path, seconds)
    except av.error.FFmpegError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def street(spec: StreetSpec, path: Path, seconds: float = STREET_SECONDS) -> None:
    """Encodes the street as a camera would: H.264 without B-frames, one slice a picture, a key picture every 2 s."""
    drawn = Street(spec.seed, spec.width, spec.height, spec.fps)
    every = round(KEY_SECONDS * spec.fps)
    x264 = f"slices=1:sliced-threads=0:bframes=0:keyint={every}:min-keyint={every}:scenecut=0"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(spec.fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.bit_rate = round(BITS_A_PIXEL * spec.width * spec.height * spec.fps)
        stream.options = {"preset": "veryfast", "x264-params": x264}
        for index in range(max(2, round(seconds * spec.fps))):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn.picture(index), "rgb24")))
        container.mux(stream.encode())


def lasting(source: Source, seconds: float, folder: Path, fps: float | None = None) -> Clip:
    """A file of at least `seconds`: the pictures of `source`, a file, as they are encoded, over and over, at their own
    rate or at `fps`. Raises ConfigError for what cannot be repeated, SourceError."""
    out = folder / "camera.mkv"
    try:
        return _repeated(source.location, seconds, out, fps)
    except av.error.FFmpegError as error:
        raise SourceError(f"{source.shown}: cannot be played over and over: {error}") from error


def _repeated(location: str, seconds: float, out: Path, fps: float | None) -> Clip:
    frames = size = 0
    with av.open(str(out), "w") as written, av.open(location) as first:
        if not first.streams.video:
            raise ConfigError(f"{location}: no video in it")
        model = first.streams.video[0]
        own = model.average_rate or model.base_rate
        if not own:
            raise ConfigError(f"{location}: it does not say its frame rate; give --fps")
        rate = Fraction(fps).limit_denominator(1000) if fps else own
        stream = written.add_stream_from_template(model)
        while frames < seconds * rate:
            sizes = list(_copied(location, written, stream, frames, rate, own))
            if not sizes:
                raise ConfigError(f"{location}: no picture in it")
            frames, size = frames + len(sizes), size + sum(sizes)
        codec = model.codec_context
        megabits = size * 8 / float(frames / rate) / 1e6
        return Clip(out, codec.width, codec.height, codec.name, float(rate), frames, megabits)


def _copied(location: str, written: Any, stream: Any, done: int, rate: Fraction, own: Fraction) -> Iterator[int]:
    """The bytes of every packet of one more time, which begins where `done` frames end."""
    step = TICKS / rate
    with av.open(location) as container:
        read = container.streams.video[0]
        stretch = own * read.time_base * step  # from its ticks to ours
        number = done
        for packet in container.demux(read):
            if not packet.size:
                continue
            ahead = 0 if packet.pts is None or packet.dts is None else packet.pts - packet.dts
            size = packet.size
            packet.stream, packet.time_base = stream, Fraction(1, TICKS)
            packet.dts = round(number * step)
            packet.pts = packet.dts + round(ahead * stretch)
            packet.duration = round(step)
            written.mux(packet)
            number += 1
            yield size
