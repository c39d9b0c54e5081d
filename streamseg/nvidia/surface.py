"""A decoded picture in GPU memory, as torch tensors on the decoder's own memory. Any thread.

On a machine without a GPU the same code takes pictures in host memory, which is how it is tested there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamseg.motion import ROWS
from streamseg.types import U8, Roi

if TYPE_CHECKING:
    import torch

MATRICES = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
"""The shares of red and of blue in luma (ITU-T H.273, table 4)."""
_TAGGED = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
"""FFmpeg's AVColorSpace, which is H.273's MatrixCoefficients."""
_UNSPECIFIED, _FULL = 2, 2  # AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_JPEG


@dataclass(frozen=True, slots=True)
class Surface:
    """An NV12 picture: `y` u8 [H, W], `uv` u8 [h, w, 2], on one device; rows may be strided. `matrix`: see MATRICES;
    `full_range`: y spans 0..255 rather than 16..235."""

    y: torch.Tensor
    uv: torch.Tensor
    matrix: str
    full_range: bool

    def __post_init__(self) -> None:
        if self.y.stride(1) != 1 or self.uv.stride(2) != 1 or self.uv.stride(1) != 2:
            raise ValueError("not NV12: the samples of a row must lie side by side")

    def __repr__(self) -> str:
        return f"Surface({self.width}x{self.height}, {self.matrix}, {self.device})"

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])

    @property
    def device(self) -> str:
        return str(self.y.device)

    def chroma_of(self, part: Roi) -> tuple[int, int]:
        """(columns, rows) of the chroma samples of a part; FFmpeg leaves out the last half one of an odd side."""
        rows, columns, _ = self.uv.shape
        return min((part.width + 1) // 2, columns - part.x // 2), min((part.height + 1) // 2, rows - part.y // 2)

    def thumbnail(self) -> U8:
        """As `motion.thumbnail` of its luma (but for a rounding half way), made where it is. Waits for 32 KB."""
        step = max(1, self.height // ROWS)
        rows, columns = self.height // step, self.width // step
        every = step if step % 2 else step // 2
        seen = self.y[: rows * step : every, : columns * step].reshape(rows, step // every, columns, step)
        means = seen.float().mean((1, 3)).round().byte()
        return np.asarray(means.cpu().numpy(), np.uint8)


@dataclass(frozen=True, slots=True)
class Resident:
    """What of a surface becomes an input: its `part` (even coordinates) is scaled to `size` (width, height), of which
    the input begins `at` (x, y)."""

    surface: Surface
    part: Roi
    size: tuple[int, int]
    at: tuple[int, int] = (0, 0)


def surface_of(frame: Any) -> Surface | None:
    """Of a PyAV frame, in the memory that it was decoded into (kept as long as the surface is); None where that is not
    NV12, as of 10 bits."""
    if (frame.sw_format or frame.format).name != "nv12":
        return None
    from torch.utils.dlpack import from_dlpack

    # The capsule, not the plane: torch would ask PyAV to wait for a CUDA stream, which it refuses to.
    y, uv = (from_dlpack(plane.__dlpack__()) for plane in frame.planes)
    # What CPU pictures are taken for: see AvPicture.
    unsaid = "bt709" if frame.colorspace == _UNSPECIFIED and frame.height >= 720 else "bt601"
    return Surface(y, uv, _TAGGED.get(int(frame.colorspace), unsaid), int(frame.color_range) == _FULL)
