"""Small real clips, encoded with PyAV from pictures that carry their own number, so that a test knows what it got."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 16
"""The frame's number is drawn as this many black or white blocks over the top quarter of the picture."""


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """The `number`-th picture of every clip: u8 [height, width, 3] RGB. Blocks on top, a square moving below."""
    rgb = background(width, height).copy()
    side = height // 4
    bits = number >> (np.arange(width) * BITS // width) & 1
    rgb[:side] = np.where(bits, 235, 16)[None, :, None]
    left = number * 4 % max(1, width - side)
    rgb[height // 2 : height // 2 + side, left : left + side] = (200, 60, 40)
    return rgb


@cache
def background(width: int, height: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([60 + 80 * x // width, 60 + 80 * y // height, np.full_like(x, 110)], axis=-1).astype(np.uint8)


def read_number(rgb: NDArray[np.uint8]) -> int:
    """The number that `picture` drew, from a decoded picture at any size of 32x8 or more."""
    height, width = rgb.shape[:2]
    columns = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return sum(1 << bit for bit, column in enumerate(columns) if int(rgb[height // 8, column].mean()) > 127)


class Clips:
    """Makes clips in `folder`; the same request gives the same file. `clip("h264", frames=50, width=640)` -> Path.

    Video kinds take `frames`, `width`, `height`, `fps`, `container` (the suffix) and `gop` (pictures from one key
    picture to the next); h264 and h265 also `bframes`; gaps also `missing`, the numbers of the pictures left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kinds: dict[str, Callable[..., None]] = {
            "h264": h264,
            "h265": h265,
            "mjpeg": mjpeg,
            "gaps": gaps,
            "resized": resized,
            "damaged": damaged,
            "truncated": truncated,
            "beginning": beginning,
            "audio": audio,
            "text": lambda path: path.write_text("This is not a video.\n" * 100),
            "empty": lambda path: path.write_bytes(b""),
        }
        self._suffixes = {"mjpeg": "avi", "resized": "ts"}

    def __call__(self, kind: str, *, container: str | None = None, **options: Any) -> Path:
        if kind not in self._kinds:
            raise ValueError(f"no clip kind {kind!r}; there are {', '.join(self._kinds)}")
        words = [kind, *(f"{key}{value}" for key, value in sorted(options.items()))]
        name = "-".join(words).translate(str.maketrans("", "", "()[] ,'"))
        path = self.folder / f"{name}.{container or self._suffixes.get(kind, 'mp4')}"
        if not path.exists():
            self._kinds[kind](path, **options)
        return path


def h264(path: Path, bframes: int = 0, gop: int = 12, **options: Any) -> None:
    # One slice a picture, as cameras send; no scene cut, so that key pictures are where `gop` says.
    x264 = f"slices=1:sliced-threads=0:threads=1:bframes={bframes}:keyint={gop}:min-keyint={gop}:scenecut=0"
    encode(path, "libx264", {"preset": "ultrafast", "x264-params": x264}, **options)


def h265(path: Path, bframes: int = 0, gop: int = 12, **options: Any) -> None:
    x265 = f"log-level=none:pools=1:frame-threads=1:bframes={bframes}:keyint={gop}:min-keyint={gop}:scenecut=0"
    encode(path, "libx265", {"preset": "ultrafast", "x265-params": x265}, **options)


def mjpeg(path: Path, **options: Any) -> None:
    encode(path, "mjpeg", {"qmin": "2", "qmax": "4"}, pixel_format="yuvj420p", **options)


def gaps(path: Path, frames: int = 30, missing: Iterable[int] = range(10, 20), **options: Any) -> None:
    """A clip whose timestamps jump over the pictures in `missing`."""
    left_out = set(missing)
    h264(path, numbers=[number for number in range(frames) if number not in left_out], **options)


def resized(path: Path, frames: int = 15, sizes: Iterable[tuple[int, int]] = ((320, 240), (480, 360))) -> None:
    """The picture size changes mid-stream: MPEG-TS pieces, one after the other, `frames` pictures each."""
    pieces = []
    for index, (width, height) in enumerate(sizes):
        piece = path.with_name(f"{path.stem}-{index}.ts")
        numbers = range(index * frames, (index + 1) * frames)
        h264(piece, numbers=numbers, width=width, height=height)
        pieces.append(piece.read_bytes())
    path.write_bytes(b"".join(pieces))


def damaged(path: Path, frames: int = 60, **options: Any) -> None:
    """Opens and plays, with a stretch of random bytes in the middle: some pictures are lost or broken."""
    whole = path.with_name(f"whole-{path.name}")
    h264(whole, frames=frames, movflags="+faststart", **options)
    data = bytearray(whole.read_bytes())
    start, length = len(data) // 2, len(data) // 20
    data[start : start + length] = np.random.default_rng(1).bytes(length)
    path.write_bytes(data)


def truncated(path: Path, **options: Any) -> None:
    """The first half of an mp4 whose index (moov) was at its end: it cannot be opened."""
    whole = path.with_name(f"whole-{path.name}")
    h264(whole, **options)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def beginning(path: Path) -> None:
    """The first 600 bytes of an mp4: its index is cut."""
    whole = path.with_name(f"whole-{path.name}")
    h264(whole, movflags="+faststart")
    path.write_bytes(whole.read_bytes()[:600])


def audio(path: Path, seconds: float = 1.0) -> None:
    rate = 16_000
    samples = np.sin(np.arange(int(rate * seconds)) * 2 * np.pi * 440 / rate).astype(np.float32)
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def encode(
    path: Path,
    codec: str,
    options: dict[str, str],
    *,
    frames: int = 30,
    numbers: Iterable[int] | None = None,
    width: int = 320,
    height: int = 240,
    fps: int = 25,
    pixel_format: str = "yuv420p",
    movflags: str | None = None,
) -> None:
    """Encodes the pictures `numbers` (by default 0 to `frames` - 1), each at the time number / fps."""
    with av.open(path, "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        if pixel_format == "yuvj420p":
            stream.codec_context.color_range = 2  # full range, which MJPEG insists on
        for number in range(frames) if numbers is None else numbers:
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
