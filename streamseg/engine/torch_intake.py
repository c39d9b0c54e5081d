"""Brings a batch's pictures to where its program reads them. In the thread that runs the program.

Pictures in host memory are stacked in pinned memory and uploaded at once; pictures that were decoded on the GPU are
scaled by one kernel straight from the decoder's planes into their rows. A batch may be of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from streamseg.engine.torch_device import Device
from streamseg.nvidia.surface import Resident
from streamseg.types import U8

Picture: TypeAlias = U8 | Resident | torch.Tensor
"""u8 [H, W, 3], in host memory or on the device; or what is still to be scaled."""


def fill(into: torch.Tensor, pictures: Sequence[Picture], device: Device) -> None:
    """Queues what makes `into` u8 [n, H, W, 3] of n pictures. Those on the device must stay until it has run."""
    uploaded = {row: each for row, each in enumerate(pictures) if isinstance(each, np.ndarray)}
    there = {row: each for row, each in enumerate(pictures) if isinstance(each, torch.Tensor)}
    resident = {row: each for row, each in enumerate(pictures) if isinstance(each, Resident)}
    if uploaded:
        staged = device.staging((len(uploaded), *into.shape[1:]), torch.uint8)
        np.stack(list(uploaded.values()), out=staged.numpy())
        together = device.upload(staged)
        with device.work():
            if len(uploaded) == len(pictures):
                into.copy_(together)
            else:
                _spread(into, dict(zip(uploaded, together, strict=True)))
    if there or resident:
        device.after_current()  # decoders and makers of tensors work on torch's default stream
    with device.work():
        _spread(into, there)
    if resident:
        _scale(into, resident, device)


def _spread(into: torch.Tensor, pictures: dict[int, torch.Tensor]) -> None:
    for row, picture in pictures.items():
        into[row].copy_(picture)


def _scale(into: torch.Tensor, pictures: dict[int, Resident], device: Device) -> None:
    from streamseg.nvidia import nv12

    entries = nv12.table(list(pictures.values()), list(pictures))
    staged = device.staging((len(entries), nv12.FIELDS), torch.int64)
    staged.numpy()[:] = entries
    told = device.upload(staged)
    with device.work():
        nv12.launch(told, into)
