"""A decoded picture in host memory, converted by swscale when somebody asks. Any thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from streamseg.errors import FrameError
from streamseg.ingest.crop import Cropper
from streamseg.motion import thumbnail
from streamseg.types import U8, Planes, Roi

_LUMA_FIRST = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"}
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED, which PyAV does not name


class Scaler:
    """swscale with the tables that it keeps between frames (0.1-0.3 ms each time otherwise). Any thread may call it,
    and one does at a time: the tables are no good for two, and PyAV lets go of the interpreter lock."""

    def __init__(self) -> None:
        self._lock, self._reformatter = threading.Lock(), VideoReformatter()
        self.crop = Cropper()

    def __call__(self, frame: av.VideoFrame, **how: Any) -> av.VideoFrame:
        with self._lock:
            return self._reformatter.reformat(frame, threads=1, **how)


class AvPicture:
    """A decoded frame, converted on demand by swscale straight from the decoder's planes."""

    __slots__ = ("_for_planes", "_for_rgb", "_frame", "_scaled", "height", "width")

    def __init__(self, frame: av.VideoFrame, for_rgb: Scaler, for_planes: Scaler) -> None:
        # Two, because rgb() is called by the inference thread and planes() by those that publish.
        self._frame, self._for_rgb, self._for_planes = frame, for_rgb, for_planes
        self.width: int = frame.width
        self.height: int = frame.height
        self._scaled: tuple[Roi | None, U8] | None = None

    def scale_ahead(self, width: int, height: int, part: Roi | None = None) -> None:
        """Does the work of `rgb` now, in the calling thread; the next `rgb` of the same hands its result out."""
        with suppress(FrameError):  # told when it is asked for
            self._scaled = part, self.rgb(width, height, part)

    def rgb(self, width: int, height: int, part: Roi | None = None) -> U8:
        scaled, self._scaled = self._scaled, None
        if scaled is not None and scaled[0] == part and scaled[1].shape[:2] == (height, width):
            return scaled[1]
        how = {"width": width, "height": height, "format": "rgb24", "interpolation": Interpolation.AREA}
        try:
            frame = self._frame if part is None else self._for_rgb.crop(self._frame, part)
            picture: Any = self._for_rgb(frame, src_colorspace=self._matrix(), **how).to_ndarray()
        except (av.error.FFmpegError, ValueError) as error:
            raise FrameError(
                f"a {self.width}x{self.height} {self._frame.format.name} picture cannot be scaled"
            ) from error
        return np.ascontiguousarray(picture, np.uint8)  # its rows are padded at some widths

    def planes(self) -> Planes:
        frame = self._frame
        if frame.format.name not in ("yuv420p", "yuvj420p"):
            frame = self._for_planes(frame, format="yuv420p")
        full = frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG
        y, u, v = (plane_of(frame.planes[i]) for i in range(3))
        return Planes(y, u, v, full_range=full)

    @property
    def surface(self) -> None:
        """It lies in host memory."""

    def thumbnail(self) -> U8:
        return thumbnail(self._luma())

    def _luma(self) -> U8:
        if self._frame.format.name in _LUMA_FIRST:
            return plane_of(self._frame.planes[0])
        return self.planes().y

    def _matrix(self) -> Colorspace | None:
        # swscale takes BT.601 where a stream does not say; HD cameras that say nothing mean BT.709.
        if self._frame.colorspace == _UNSPECIFIED and self.height >= 720:
            return Colorspace.ITU709
        return None


def plane_of(plane: Any) -> U8:
    """A view of its pixels u8 [height, width], without the padding of its rows."""
    rows = np.frombuffer(plane, np.uint8, plane.height * plane.line_size)
    view: U8 = rows.reshape(plane.height, plane.line_size)[:, : plane.width]
    return view
