"""Our real-time network: dense 3x3 convolutions down to 1/32, pyramid pooling there, a light decoder back to 1/4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import ConvBN, everywhere, resize

STEM, WIDTHS = (16, 32), (48, 112, 160)
"""Channels of the stages: of strides 2 and 4; of 8, 16 and 32."""
INNER = ((32, 32), (64, 64), (96, 96))
"""Channels inside each residual block of the latter. Of a trained network with 48 to 160 channels inside, these were
the ones that said most: without the others it takes a quarter less time, and a point of accuracy less."""
CONTEXT, DECODER, FINE = 96, 48, 16
"""Channels of each part of the pyramid, and of the decoder at 1/16 and 1/8, and at 1/4."""


class Residual(nn.Module):
    """A ResNet basic block (He et al. 2016), of `middle` channels inside; with a stride its shortcut is an average pool
    and a 1x1 (ResNet-D)."""

    def __init__(self, cin: int, cout: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBN(cin, middle, 3, stride)
        self.second = ConvBN(middle, cout, 3, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or cin != cout:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            self.shortcut = nn.Sequential(pool, ConvBN(cin, cout, 1, act=None))
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Pyramid(nn.Module):
    """Context from 1/32 to the whole picture, side by side (PSPNet, Zhao et al. 2017; strided pools as in DDRNet)."""

    def __init__(self, cin: int, width: int, cout: int) -> None:
        super().__init__()
        self.here = ConvBN(cin, width, 1)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(k, s, k // 2, count_include_pad=False), ConvBN(cin, width, 1))
            for k, s in ((5, 2), (9, 4))
        )
        self.whole = ConvBN(cin, width, 1)
        self.merge = ConvBN(4 * width, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        here = self.here(x)
        parts = [here] + [resize(pool(x), here) for pool in self.pools]
        whole = self.whole(x.mean((2, 3), keepdim=True))
        parts.append(everywhere(whole, here))
        return self.merge(torch.cat(parts, 1))


class Edge(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] (H, W multiples of 8) -> logits [N, K, H/4, W/4]; in training mode
    also the auxiliary logits at 1/16 and 1/8."""

    stride = 8
    auxiliary: tuple[str, ...] = ("aux",)

    def __init__(self, classes: int, inner: Sequence[Sequence[int]] = INNER) -> None:
        super().__init__()
        (a, b), (c, d, e), w, f = STEM, WIDTHS, DECODER, FINE
        self.stem = nn.Sequential(ConvBN(3, a, 3, 2), ConvBN(a, b, 3, 2))
        self.stage8 = self._stage(b, c, inner[0])
        self.stage16 = self._stage(c, d, inner[1])
        self.stage32 = self._stage(d, e, inner[2])
        self.context = Pyramid(e, CONTEXT, d)
        self.lift16 = ConvBN(d, d, 1, act=None)
        self.mix16 = ConvBN(d, w, 3)
        self.lift8 = ConvBN(c, w, 1, act=None)
        self.mix8 = ConvBN(w, w, 3)
        self.detail = nn.Conv2d(w, 4 * f, 1)
        self.lift4 = ConvBN(b, f, 1, act=None)
        self.head = nn.Conv2d(f, classes, 3, padding=1)
        self.aux16 = nn.Sequential(ConvBN(d, 64, 3), nn.Conv2d(64, classes, 1))
        self.aux8 = nn.Conv2d(w, classes, 1)

    @staticmethod
    def _stage(cin: int, cout: int, inner: Sequence[int]) -> nn.Sequential:
        first, *more = inner
        return nn.Sequential(Residual(cin, cout, first, stride=2), *(Residual(cout, cout, m) for m in more))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        s4 = self.stem(x)
        s8 = self.stage8(s4)
        s16 = self.stage16(s8)
        deep = self.context(self.stage32(s16))
        d16 = self.mix16(F.relu(resize(deep, s16) + self.lift16(s16)))
        d8 = self.mix8(F.relu(resize(d16, s8) + self.lift8(s8)))
        d4 = F.relu(F.pixel_shuffle(self.detail(d8), 2) + self.lift4(s4))
        out = self.head(d4)
        return (out, self.aux16(s16), self.aux8(d8)) if self.training else out


class EdgeWide(Edge):
    """The network that `Edge` is a part of: with all channels inside its blocks, and slower by a third. For pictures
    of many kinds (`people-vehicles` lost 2 points of person IoU on HumanBody2 without them, after 25 minutes)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, inner=((48, 32), (112, 112), (160, 160)))
