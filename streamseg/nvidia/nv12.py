"""NV12 pictures in GPU memory become an engine's input: one Triton kernel scales, converts and places a whole batch.

It gives what the CPU path gives (swscale with SWS_AREA, see `ingest.capture`): each output sample is the mean of the
source under it, bilinear where the picture is enlarged; where the width is even, two columns share one chroma sample,
as swscale has it. The arithmetic is exact to a level, whereas swscale's own is 1.9 levels too dark on x86 for even
widths. Without a GPU it runs in Triton's interpreter (TRITON_INTERPRET=1); it has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from streamseg.nvidia.kernels import nv12_to_rgb
from streamseg.nvidia.surface import MATRICES, Resident, Surface
from streamseg.types import U8, Roi

FIELDS = 16
"""Numbers that the kernel is told of each picture, see `table`."""
BLOCK = (4, 64)
"""Rows and columns of the output that one program makes: 2 pixels a thread, 62 registers on sm_90, none spilled;
510 programs a picture of 480x272. Chosen without a GPU to measure on."""


def table(pictures: Sequence[Resident], rows: Sequence[int]) -> list[list[int]]:
    """What `launch` is told: of every picture where its planes lie, what part of them is scaled to what size, and
    which of its output goes into which row of the batch."""
    return [_entry(picture, row) for picture, row in zip(pictures, rows, strict=True)]


def _entry(picture: Resident, row: int) -> list[int]:
    surface, part = picture.surface, picture.part
    planes = surface.y.data_ptr(), surface.uv.data_ptr(), surface.y.stride(0), surface.uv.stride(0)
    colour = 2 * list(MATRICES).index(surface.matrix) + surface.full_range
    area = part.x, part.y, part.width, part.height
    return [*planes, *area, *surface.chroma_of(part), *picture.size, *picture.at, row, colour]


def launch(entries: torch.Tensor, out: torch.Tensor) -> None:
    """Fills rows of `out` u8 [N, H, W, 3] (RGB, full range) as `entries` (`table`, i64 on the same device) say. Queued
    on the current stream; the planes must stay until it has run."""
    if not out.is_contiguous():
        raise ValueError("the batch must be contiguous")
    _, height, width, _ = out.shape
    grid = (-(-width // BLOCK[1]), -(-height // BLOCK[0]), len(entries))
    with torch.cuda.device_of(out):
        nv12_to_rgb[grid](entries, _colours(str(out.device)), out, width, height, *BLOCK, enable_fp_fusion=True)


def rgb(picture: Resident) -> U8:
    """One picture u8 [H, W, 3] in host memory, for whoever works there."""
    width, height = picture.size
    out = torch.empty((1, height, width, 3), dtype=torch.uint8, device=picture.surface.device)
    launch(torch.tensor(table([picture], [0]), device=out.device), out)
    return np.asarray(out[0].cpu().numpy(), np.uint8)


def trial(device: str) -> str:
    """Why the kernel does not run on a device (Triton may want a C compiler, or cannot write to its cache); "" where it
    does. It is compiled now, which would hold up the first frames else."""
    try:
        luma, chroma = ((16, 16), (8, 8, 2))
        y, uv = (torch.full(shape, 128, dtype=torch.uint8, device=device) for shape in (luma, chroma))
        made = rgb(Resident(Surface(y, uv, "bt709", full_range=True), Roi(0, 0, 16, 16), (8, 8)))
    except Exception as error:  # of torch, Triton, the driver or the file system: all of it means the CPU
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Triton cannot run a kernel: {lines[-1]}"
    return "" if (made == 128).all() else "Triton's kernel gives wrong colours"


@cache
def _colours(device: str) -> torch.Tensor:
    """f32 [2 x matrices, 6]: what is taken from luma, its gain, and the shares of v in red, of u and v in green, and of
    u in blue; television range first, then full range (ITU-T H.273, table 4)."""
    rows = []
    for red, blue in MATRICES.values():
        green = 1 - red - blue
        for black, luma, chroma in ((16.0, 255 / 219, 255 / 224), (0.0, 1.0, 1.0)):
            v_red, u_blue = 2 * (1 - red), 2 * (1 - blue)
            shares = v_red, -u_blue * blue / green, -v_red * red / green, u_blue
            rows.append([black, luma, *(share * chroma for share in shares)])
    return torch.tensor(rows, dtype=torch.float32, device=device)
