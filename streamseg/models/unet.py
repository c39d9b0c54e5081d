"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597), with padded convolutions and batch norm."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import ConvBN

WIDTHS = (64, 128, 256, 512, 1024)


def _double(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(ConvBN(cin, cout), ConvBN(cout, cout))


class UNet(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H, W]; in training mode a tuple of that alone.

    Odd sides are halved upwards and what is too much is cut off on the way back, so that 1/16 need not be whole.
    """

    stride = 8
    auxiliary: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__()
        narrower = list(pairwise(WIDTHS))
        self.down = nn.ModuleList([_double(3, WIDTHS[0]), *(_double(a, b) for a, b in narrower)])
        self.drop = nn.Dropout(0.5)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(narrower))
        self.merge = nn.ModuleList(_double(b, a) for a, b in reversed(narrower))
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor]:
        skips: list[Tensor] = []
        for level, convolutions in enumerate(self.down):
            x = convolutions(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
            skips.append(x)
        x = self.drop(skips.pop())
        for up, merge in zip(self.up, self.merge, strict=True):
            skip = skips.pop()
            x = merge(torch.cat([skip, up(x)[:, :, : skip.shape[2], : skip.shape[3]]], 1))
        out = self.head(x)
        return (out,) if self.training else out
