"""Decoding on an NVIDIA GPU (NVDEC, through FFmpeg): pictures stay in its memory. One ingest thread decodes a stream.

Written against PyAV 18 and FFmpeg's documentation; it has not run on a GPU yet. FFmpeg decides for each stream whether
the GPU knows its codec, profile and size, and decodes on the CPU where it does not. What it gives out is a copy in GPU
memory (1080p: 3 MB), not one of the decoder's few surfaces, so pictures may wait as long as they like
(AV_HWACCEL_FLAG_UNSAFE_OUTPUT, https://ffmpeg.org/doxygen/8.0/group__lavc__hwaccel.html).
"""

from __future__ import annotations

import ctypes
import errno
from contextlib import suppress
from typing import TYPE_CHECKING

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available

from streamseg.engine.machine import sleep_while_waiting
from streamseg.ingest.picture import AvPicture, Scaler
from streamseg.types import U8, Picture, Planes, Roi

if TYPE_CHECKING:
    from streamseg.nvidia.surface import Surface

_UNUSABLE = (av.error.ExternalError, av.error.MemoryError, av.error.PermissionError, av.error.UnknownError)


def unusable(error: av.error.FFmpegError) -> bool:
    """Whether opening with an `accelerator` may have failed because of the GPU: a driver that is not there is EPERM, a
    context with other flags ENOTSUP."""
    return isinstance(error, _UNUSABLE) or error.errno == errno.ENOTSUP


def accelerator(gpu: int) -> HWAccel:
    """What has FFmpeg decode on that GPU, in the CUDA context that torch uses too."""
    with suppress(OSError):  # no driver: FFmpeg says so
        sleep_while_waiting(ctypes.CDLL("libcuda.so.1"), gpu)
    return HWAccel("cuda", device=str(gpu), allow_software_fallback=True, is_hw_owned=True)


def missing(gpu: int) -> str:
    """Why that GPU cannot decode here; "" where it can, as far as one can tell before there is a stream."""
    if not hasattr(av.VideoFrame, "sw_format"):  # tells 8 bits from 10 on the GPU
        return f"PyAV {av.__version__} is too old; pip install 'av>=18'"
    if "cuda" not in hwdevices_available():
        return "this build of PyAV has no NVDEC"
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return "no libnvcuvid.so.1; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
    try:
        av.CodecContext.create("h264", "r", hwaccel=accelerator(gpu))
    except (av.error.FFmpegError, NotImplementedError) as error:
        return f"FFmpeg cannot use GPU {gpu}: {error}"
    return ""


def on_gpu(frame: av.VideoFrame) -> bool:
    return bool(frame.format.name == "cuda")


def picture_on_gpu(frame: av.VideoFrame, for_rgb: Scaler, for_planes: Scaler) -> Picture:
    """What the rest of the pipeline takes for a picture; one that the kernels do not know (10 bits) is brought to the
    host at once."""
    from streamseg.nvidia.surface import surface_of

    surface = surface_of(frame)
    if surface is not None:
        return GpuPicture(surface, AvPicture(frame, for_rgb, for_planes))
    if frame.sw_format is not None:
        frame = frame.reformat(format=frame.sw_format.name)
    return AvPicture(frame, for_rgb, for_planes)


class GpuPicture:
    """A picture in GPU memory. An engine on that GPU takes its `surface`; everyone else has it brought over, on demand:
    `planes`, when somebody subscribes to pictures; `rgb`, for an engine on the CPU."""

    __slots__ = ("_downloading", "height", "surface", "width")

    def __init__(self, surface: Surface, downloading: AvPicture) -> None:
        self.surface = surface
        self.width, self.height = downloading.width, downloading.height
        self._downloading = downloading

    def rgb(self, width: int, height: int, part: Roi | None = None) -> U8:
        from streamseg.nvidia import nv12
        from streamseg.nvidia.surface import Resident

        return nv12.rgb(Resident(self.surface, part or Roi(0, 0, self.width, self.height), (width, height)))

    def scale_ahead(self, width: int, height: int, part: Roi | None = None) -> None:
        """Nothing: a whole batch is scaled at once, where it is needed."""

    def planes(self) -> Planes:
        return self._downloading.planes()

    def thumbnail(self) -> U8:
        return self.surface.thumbnail()
