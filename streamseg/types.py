"""What flows from stage to stage. All of it is frozen; no thread lives here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamseg.nvidia.surface import Surface

U8 = NDArray[np.uint8]
NAME = r"[A-Za-z0-9_.-]{1,64}"
"""What names of streams, classes and engines match, on the wire too."""
Clock = Literal["host", "rtcp", "file"]
Encoding = Literal["raw", "deflate", "zstd", "png", "coco-rle"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
SmoothingMode = Literal["off", "average", "adaptive"]
StreamState = Literal["connecting", "running", "reconnecting", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class of an engine: its id in the label map, its name on the wire, its colour (RGB, 0..255)."""

    id: int
    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Roi:
    """A rectangle of the source picture, in source pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        return slice(self.y, self.y + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.x, self.x + self.width)


@dataclass(frozen=True, slots=True)
class Planes:
    """A YUV 4:2:0 picture: `y` u8 [H, W]; `u`, `v` u8 [ceil(H/2), ceil(W/2)]. Read only; rows may be strided.

    `full_range`: y spans 0..255 (JPEG) rather than 16..235 (television).
    """

    y: U8
    u: U8
    v: U8
    full_range: bool

    def __repr__(self) -> str:
        return f"Planes({self.y.shape[1]}x{self.y.shape[0]}, full_range={self.full_range})"


class Picture(Protocol):
    """A decoded picture whose pixels are converted only when somebody asks. Methods may be called from any thread."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...

    def rgb(self, width: int, height: int, part: Roi | None = None) -> U8:
        """The picture, or its `part` (even coordinates), scaled to `width` x `height`: u8 [height, width, 3], RGB,
        full range, contiguous."""
        ...

    def scale_ahead(self, width: int, height: int, part: Roi | None = None) -> None:
        """Does the work of `rgb` now; the next `rgb` of the same hands its result out."""
        ...

    def planes(self) -> Planes:
        """The picture at its own size as YUV 4:2:0."""
        ...

    def thumbnail(self) -> U8:
        """A small picture of its luma: see `motion`."""
        ...

    @property
    def surface(self) -> Surface | None:
        """Where it lies in a GPU's memory; None: in the host's."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame of one stream.

    `number` counts the stream's decoded frames from 0 within `epoch`; `pts_ns` is information, never the clock;
    `captured_ns` is the host's UTC time at arrival (the camera's own where `clock` is "rtcp"; "file" says that the
    picture itself is old).
    `state_key` changes whenever temporal state must be forgotten (reconnect, change of size).
    """

    stream: str
    epoch: int
    number: int
    pts_ns: int | None
    captured_ns: int
    clock: Clock
    decode_us: int
    ready_ns: int
    """`time.monotonic_ns()` when decoding ended: the start of the waiting time."""
    media_ns: int
    """Media time, never going back: PTS for files, arrival for live streams. Its differences drive smoothing."""
    state_key: int
    picture: Picture = field(repr=False)
    thumbnail: U8 | None = field(default=None, repr=False)
    """A small picture of its luma (see `motion`); None: analyse it, whatever moved."""


MakeLabels = Callable[[], U8]
"""Makes a label map u8 [H', W'] that the caller owns; any thread, any time."""


@dataclass(frozen=True)
class Result:
    """What the engine made of one frame. The label map is made when it is first asked for, by the thread that asks:
    beside the inference thread, and not at all where nobody subscribes."""

    frame: Frame
    make_labels: MakeLabels = field(repr=False)
    engine: str
    """name@digest"""
    smoothed: bool
    roi: Roi
    wait_us: int
    infer_us: int
    reused: bool = False
    """Nothing moved since an earlier frame, whose labels these are."""

    @cached_property
    def labels(self) -> U8:
        """u8 [H', W'], one class id a pixel (255: none)."""
        return self.make_labels()

    def repeatable(self) -> Callable[[Frame], Result]:
        """What makes a result with the same labels for a later frame. It does not keep this one's picture alive."""
        labels, engine, smoothed, roi = self.make_labels, self.engine, self.smoothed, self.roi
        return lambda frame: Result(frame, labels, engine, smoothed, roi, wait_us=0, infer_us=0, reused=True)
