"""Brings a batch's pictures to where its program reads them. In the thread that runs the program.

Pictures in host memory are stacked in pinned memory and uploaded at once; pictures that were decoded on the GPU are
scaled by one kernel straight from the decoder's planes into their rows. A batch may be of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TypeAlias

import numpy as np
import torch

from streamseg.engine.torch_device import HANDS, Device
from streamseg.nvidia.surface import Resident
from streamseg.types import U8

Picture: TypeAlias = U8 | Resident | torch.Tensor
"""u8 [H, W, 3], in host memory or on the device; or what is still to be scaled."""

LARGE_BYTES = 4 << 20
"""Of pictures, from which on several hands are faster than one."""


def fill(into: torch.Tensor, pictures: Sequence[Picture], device: Device) -> None:
    """Queues what makes `into` u8 [n, H, W, 3] of n pictures. Those on the device must stay until it has run."""
    uploaded = {row: each for row, each in enumerate(pictures) if isinstance(each, np.ndarray)}
    there = {row: each for row, each in enumerate(pictures) if isinstance(each, torch.Tensor)}
    resident = {row: each for row, each in enumerate(pictures) if isinstance(each, Resident)}
    if uploaded:
        staged = device.staging((len(uploaded), *into.shape[1:]), torch.uint8)
        stack(list(uploaded.values()), staged.numpy(), device.hands)
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


def stack(pictures: Sequence[U8], out: U8, hands: Executor | None) -> None:
    """As numpy does; of much, each hand copies a part. One core copies some 10 GB/s: for 32 pictures of 480x272 that is
    a millisecond (reckoned, not measured), in which a GPU would have analysed them."""
    step = len(pictures) if hands is None or out.nbytes < LARGE_BYTES else -(-len(pictures) // HANDS)
    parts = [slice(at, at + step) for at in range(0, len(pictures), step)]

    def copy(part: slice) -> None:
        np.stack(pictures[part], out=out[part])

    if hands is None or len(parts) == 1:
        copy(parts[0])
    else:
        list(hands.map(copy, parts))


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
