"""Pictures the right way up: turned as their rotation tag asks, as players do, or as the configuration says."""

from __future__ import annotations

import av
import cv2
import numpy as np

from streamseg.ingest.picture import Scaler, plane_of

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Upright:
    """Turns the frames of one stream."""

    def __init__(self, degrees: int | None) -> None:
        """`degrees`, clockwise: 0, 90, 180 or 270; None: as each frame's tag says."""
        self._degrees, self._scaler = degrees, Scaler()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` itself, or a turned copy in YUV 4:2:0, in host memory. Raises FFmpegError."""
        degrees = -frame.rotation % 360 if self._degrees is None else self._degrees
        turn = _TURNS.get(degrees)  # a tag may say any angle: of 45 degrees no picture is made, by players neither
        if turn is None:
            return frame
        if frame.format.name not in ("yuv420p", "yuvj420p"):
            frame = self._scaler(frame, format="yuv420p")
        sides = (frame.width, frame.height) if degrees == 180 else (frame.height, frame.width)
        turned = av.VideoFrame(*sides, frame.format.name)
        for ours, theirs in zip(turned.planes, frame.planes, strict=True):
            np.copyto(plane_of(ours), cv2.rotate(plane_of(theirs), turn))
        turned.colorspace, turned.color_range = frame.colorspace, frame.color_range
        return turned
