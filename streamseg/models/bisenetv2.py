"""BiSeNetV2 (Yu et al. 2021, arXiv 2004.02147): a wide branch for detail, a thin deep one for semantics, each weighing
the other. Weights are named as in CoinCheung/BiSeNet, so that its checkpoints load."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import NamedConvBN, conv_bn, initialise, repeat

WIDEN = 6


def _stage(cin: int, cout: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(NamedConvBN(cin, cout, stride=2), *(NamedConvBN(cout, cout) for _ in range(blocks - 1)))


class Detail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.S1 = _stage(3, 64, 2)
        self.S2 = _stage(64, 64, 3)
        self.S3 = _stage(64, 128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.S3(self.S2(self.S1(x)))


class Stem(nn.Module):
    """Stride 4 at once: by convolution and by pooling, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = NamedConvBN(3, 16, stride=2)
        self.left = nn.Sequential(NamedConvBN(16, 8, 1), NamedConvBN(8, 16, stride=2))
        self.fuse = NamedConvBN(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fuse(torch.cat([self.left(x), F.max_pool2d(x, 3, 2, 1)], 1))


class Gather(nn.Module):
    """Gather and expand: a 3x3 that gathers, a depthwise one on six times the channels, a 1x1 back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * WIDEN
        self.conv1 = NamedConvBN(channels, channels)
        self.dwconv = nn.Sequential(*conv_bn(channels, wide, 3, groups=channels), nn.ReLU(inplace=True))
        self.conv2 = conv_bn(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(self.dwconv(self.conv1(x))))


class GatherDown(nn.Module):
    """The same with stride 2: two depthwise convolutions, and a separable one as the shortcut."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        wide = cin * WIDEN
        self.conv1 = NamedConvBN(cin, cin)
        self.dwconv1 = conv_bn(cin, wide, 3, 2, cin)
        self.dwconv2 = nn.Sequential(*conv_bn(wide, wide, 3, 1, wide), nn.ReLU(inplace=True))
        self.conv2 = conv_bn(wide, cout, 1)
        self.shortcut = nn.Sequential(*conv_bn(cin, cin, 3, 2, cin), *conv_bn(cin, cout, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(self.dwconv2(self.dwconv1(self.conv1(x)))))


class Context(nn.Module):
    """Context embedding: what the whole picture says, added everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_gap = NamedConvBN(channels, channels, 1)
        self.conv_last = NamedConvBN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_last(x + self.conv_gap(self.bn(x.mean((2, 3), keepdim=True))))


class Semantics(nn.Module):
    """Picture -> features at strides 4, 8, 16 and 32, and the last with context."""

    def __init__(self) -> None:
        super().__init__()
        self.S1S2 = Stem()
        self.S3 = nn.Sequential(GatherDown(16, 32), Gather(32))
        self.S4 = nn.Sequential(GatherDown(32, 64), Gather(64))
        self.S5_4 = nn.Sequential(GatherDown(64, 128), *(Gather(128) for _ in range(3)))
        self.S5_5 = Context(128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        s4 = self.S1S2(x)
        s8 = self.S3(s4)
        s16 = self.S4(s8)
        s32 = self.S5_4(s16)
        return s4, s8, s16, s32, self.S5_5(s32)


class Aggregate(nn.Module):
    """Bilateral guided aggregation: each branch weighs the other at its own size, then both are summed at 1/8."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.left1 = nn.Sequential(*conv_bn(c, c, 3, groups=c), nn.Conv2d(c, c, 1, bias=False))
        self.left2 = nn.Sequential(*conv_bn(c, c, 3, 2), nn.AvgPool2d(3, 2, 1))
        self.right1 = conv_bn(c, c, 3)
        self.right2 = nn.Sequential(*conv_bn(c, c, 3, groups=c), nn.Conv2d(c, c, 1, bias=False))
        self.conv = nn.Sequential(*conv_bn(c, c, 3), nn.ReLU(inplace=True))

    def forward(self, detail: Tensor, semantics: Tensor) -> Tensor:
        fine = self.left1(detail) * repeat(self.right1(semantics).sigmoid(), detail)
        coarse = self.left2(detail) * self.right2(semantics).sigmoid()
        return self.conv(fine + repeat(coarse, detail))


class Head(nn.Module):
    """The main head keeps its input's size; an auxiliary one, at stride `booster`, doubles it."""

    def __init__(self, cin: int, middle: int, classes: int, booster: int | None = None) -> None:
        super().__init__()
        last = booster**2 if booster else middle
        twice = nn.Sequential(nn.Upsample(scale_factor=2), NamedConvBN(middle, last))
        self.conv = NamedConvBN(cin, middle)
        self.drop = nn.Dropout(0.1)
        self.conv_out = nn.Sequential(twice if booster else nn.Identity(), nn.Conv2d(last, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.drop(self.conv(x)))


class BiSeNetV2(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode also those of the booster
    heads on the semantic branch, at 1/2, 1/4, 1/8 and 1/16."""

    stride = 8
    auxiliary: tuple[str, ...] = ("aux",)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.detail = Detail()
        self.segment = Semantics()
        self.bga = Aggregate(128)
        self.head = Head(128, 1024, classes)
        self.aux2 = Head(16, 128, classes, 4)
        self.aux3 = Head(32, 128, classes, 8)
        self.aux4 = Head(64, 128, classes, 16)
        self.aux5_4 = Head(128, 128, classes, 32)
        initialise(self)
        for layer in self.modules():
            if isinstance(layer, Gather | GatherDown):
                nn.init.zeros_(layer.conv2[1].weight)  # blocks start as what their shortcut gives

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        s4, s8, s16, s32, semantics = self.segment(x)
        out = self.head(self.bga(self.detail(x), semantics))
        boosters = ((self.aux2, s4), (self.aux3, s8), (self.aux4, s16), (self.aux5_4, s32))
        return (out, *(head(features) for head, features in boosters)) if self.training else out
