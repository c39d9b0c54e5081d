"""Annotated pictures and JPEGs made on the GPU that holds the pictures: labels go up, and only JPEG bytes come down.

Encoding is nvImageCodec's (nvJPEG on the GPU); written against its version 0.9, whose CPU encoder runs the tests where
there is no GPU. It has not run on one yet. Any thread; pictures of a device are encoded one at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from streamseg.nvidia import nv12
from streamseg.nvidia.surface import Resident, Surface
from streamseg.overlay import ALPHA, legend, legend_rgb
from streamseg.types import U8, ClassInfo, Roi

log = logging.getLogger("streamseg")
_LUMA = (0.299, 0.587, 0.114)  # JFIF (ITU-T T.871)


class GpuJpegs:
    """`plain` and `annotated` as `encode` has them on the CPU; None from both, and one line in the log, where the GPU
    cannot: then the CPU does."""

    def __init__(self, classes: Sequence[ClassInfo], quality: int, undrawn: frozenset[int] = frozenset()) -> None:
        self._classes, self._quality, self._undrawn = tuple(classes), quality, undrawn
        self._lock = threading.Lock()
        self._encoders: dict[str, Any] = {}
        self._tables: dict[str, torch.Tensor] = {}

    def plain(self, surface: Surface) -> bytes | None:
        return self._encoded(surface.device, _rgb(surface)) if self._ready(surface.device) else None

    def annotated(self, surface: Surface, labels: U8, roi: Roi | None = None) -> bytes | None:
        """`labels` u8 [h, w], stretched over `roi` or the picture."""
        if not self._ready(surface.device):
            return None
        return self._encoded(surface.device, self.drawn(surface, labels, roi))

    def drawn(self, surface: Surface, labels: U8, roi: Roi | None = None) -> torch.Tensor:
        """The picture u8 [H, W, 3] with class colours in its chroma (its luma stays) and the legend; on its device."""
        picture = _rgb(surface)
        part = roi or Roi(0, 0, surface.width, surface.height)
        seen = picture[part.rows, part.columns].float()
        colours = self._colours(surface.device)[_stretched(labels, part, surface.device)]
        luma = (seen * seen.new_tensor(_LUMA)).sum(-1, keepdim=True)
        mixed = seen + ALPHA * colours[..., 3:] * (luma + colours[..., :3] - seen)
        picture[part.rows, part.columns] = mixed.clamp(0, 255).round().byte()
        box = self._legend(surface.device, surface.height)
        if box.shape[1] <= surface.width:
            picture[: box.shape[0], : box.shape[1]] = box
        return picture

    def _legend(self, device: str, height: int) -> torch.Tensor:
        """u8 [h, w, 3]; empty where there is no room."""
        key = f"{device} {height}"
        if key not in self._tables:
            box = legend(tuple(c for c in self._classes if c.id not in self._undrawn), height)
            made = torch.zeros((0, 0, 3), dtype=torch.uint8) if box is None else torch.from_numpy(legend_rgb(box))
            self._tables[key] = made.to(device)
        return self._tables[key]

    def _colours(self, device: str) -> torch.Tensor:
        """f32 [256, 4] by label: the class colour without its luma, and whether it is drawn (1) or not (0)."""
        if device not in self._tables:
            table = torch.zeros((256, 4))
            for each in self._classes:
                colour = torch.tensor([*map(float, each.colour)])
                table[each.id, :3] = colour - (colour * torch.tensor(_LUMA)).sum()
                table[each.id, 3] = float(each.id not in self._undrawn)
            self._tables[device] = table.to(device)
        return self._tables[device]

    def _ready(self, device: str) -> bool:
        with self._lock:
            if device not in self._encoders:
                self._encoders[device] = _encoder(device)
            return self._encoders[device] is not None

    def _encoded(self, device: str, picture: torch.Tensor) -> bytes | None:
        from nvidia import nvimgcodec

        params = nvimgcodec.EncodeParams(
            quality_type=nvimgcodec.QualityType.QUALITY,
            quality_value=self._quality,
            color_spec=nvimgcodec.ColorSpec.SYCC,
            chroma_subsampling=nvimgcodec.ChromaSubsampling.CSS_420,
        )
        stream = torch.cuda.current_stream(picture.device).cuda_stream if picture.is_cuda else 0
        source = picture if picture.is_cuda else picture.numpy()
        why: object = "it does not say why"
        with self._lock, torch.cuda.device_of(picture):
            try:
                image = nvimgcodec.as_image(source, stream)
                made = self._encoders[device].encode(image, "jpeg", params=params, cuda_stream=stream)
                if made is not None:
                    return bytes(made)
            except RuntimeError as error:
                why = error
            self._encoders[device] = None
        log.warning("JPEGs are made on the CPU: nvImageCodec does not encode on %s (%s)", device, why)
        return None


def _rgb(surface: Surface) -> torch.Tensor:
    """u8 [H, W, 3] on its device."""
    whole = Roi(0, 0, surface.width, surface.height)
    out = torch.empty((1, surface.height, surface.width, 3), dtype=torch.uint8, device=surface.y.device)
    entries = nv12.table([Resident(surface, whole, (surface.width, surface.height))], [0])
    nv12.launch(torch.tensor(entries, device=out.device), out)
    return out[0]


def _stretched(labels: U8, part: Roi, device: str) -> torch.Tensor:
    """i64 [part.height, part.width], the nearest label of each pixel."""
    there = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
    rows, columns = (
        (torch.arange(side, device=device) * count) // side
        for side, count in zip((part.height, part.width), labels.shape, strict=True)
    )
    return there[rows][:, columns].long()


def _encoder(device: str) -> Any:
    """nvImageCodec's encoder there; None, and a line in the log, without one."""
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        log.warning("JPEGs are made on the CPU: %s; pip install 'nvidia-nvimgcodec-cu13[nvjpeg]' (or -cu12)", error)
        return None
    if not device.startswith("cuda"):  # in tests
        return nvimgcodec.Encoder(
            device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
            backends=[nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)],
        )
    try:
        return nvimgcodec.Encoder(device_id=int(device.partition(":")[2]))
    except RuntimeError as error:
        log.warning("JPEGs are made on the CPU: nvImageCodec does not start on %s (%s)", device, error)
        return None
