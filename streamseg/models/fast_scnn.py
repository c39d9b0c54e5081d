"""Fast-SCNN (Poudel et al. 2019, arXiv 1902.04502): one path down to 1/8, from there a deep one at 1/32 beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import ConvBN, InvertedResidual, Separable, pool, resize

BINS = (1, 2, 3, 6)


def _stage(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(InvertedResidual(cin, cout, stride), *(InvertedResidual(cout, cout) for _ in range(2)))


class PyramidPool(nn.Module):
    """The means of 1, 4, 9 and 36 parts of the picture beside the features (PSPNet, Zhao et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ConvBN(channels, channels // len(BINS), 1) for _ in BINS)
        self.merge = ConvBN(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.shape
        means = (pool(x, bins, bins).reshape(n, c, bins, bins) for bins in BINS)
        return self.merge(torch.cat([x, *(resize(p(m), x) for p, m in zip(self.parts, means, strict=True))], 1))


class FastScnn(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode also the auxiliary logits
    of the two paths before they meet, at 1/8 and 1/32."""

    stride = 8
    auxiliary: tuple[str, ...] = ("aux",)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.down = nn.Sequential(ConvBN(3, 32, 3, 2), Separable(32, 48, 2), Separable(48, 64, 2))
        self.deep = nn.Sequential(_stage(64, 64, 2), _stage(64, 96, 2), _stage(96, 128, 1), PyramidPool(128))
        self.fuse_deep = nn.Sequential(ConvBN(128, 128, 3, groups=128), ConvBN(128, 128, 1, act=None))
        self.fuse_fine = ConvBN(64, 128, 1, act=None)
        self.classify = nn.Sequential(Separable(128, 128), Separable(128, 128), nn.Dropout(0.1))
        self.head = nn.Conv2d(128, classes, 1)
        self.aux8 = nn.Sequential(ConvBN(64, 32), nn.Conv2d(32, classes, 1))
        self.aux32 = nn.Sequential(ConvBN(128, 32), nn.Conv2d(32, classes, 1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        s8 = self.down(x)
        s32 = self.deep(s8)
        fused = F.relu(self.fuse_fine(s8) + self.fuse_deep(resize(s32, s8)))
        out = self.head(self.classify(fused))
        return (out, self.aux8(s8), self.aux32(s32)) if self.training else out
