"""BiSeNet (Yu et al. 2018, arXiv 1808.00897) on ResNet-18: a wide, shallow path for detail beside a deep one for
context. Weights are named as in CoinCheung/BiSeNet, so that its checkpoints load."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamseg.models.layers import NamedConvBN, initialise, repeat
from streamseg.models.resnet import ResNet18


class Refine(nn.Module):
    """Attention refinement: features, weighed by what the whole picture says."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = NamedConvBN(cin, cout)
        self.conv_atten = nn.Conv2d(cout, cout, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()


class ContextPath(nn.Module):
    """Picture -> context at strides 8 and 16, of 128 channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = Refine(256, 128)
        self.arm32 = Refine(512, 128)
        self.conv_head32 = NamedConvBN(128, 128)
        self.conv_head16 = NamedConvBN(128, 128)
        self.conv_avg = NamedConvBN(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s8, s16, s32 = self.resnet(x)
        whole = self.conv_avg(s32.mean((2, 3), keepdim=True))
        c16 = self.conv_head32(repeat(self.arm32(s32) + whole, s16))
        return self.conv_head16(repeat(self.arm16(s16) + c16, s8)), c16


class SpatialPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NamedConvBN(3, 64, 7, 2)
        self.conv2 = NamedConvBN(64, 64, 3, 2)
        self.conv3 = NamedConvBN(64, 64, 3, 2)
        self.conv_out = NamedConvBN(64, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv3(self.conv2(self.conv1(x))))


class Fuse(nn.Module):
    """Feature fusion: both paths in one, plus the same weighed by what the whole picture says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = NamedConvBN(channels, channels, 1)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([detail, context], 1))
        return x + x * self.bn(self.conv(x.mean((2, 3), keepdim=True))).sigmoid()


class Head(nn.Module):
    def __init__(self, cin: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = NamedConvBN(cin, middle)
        self.conv_out = nn.Conv2d(middle, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNetV1(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode also the auxiliary logits
    of the context path at 1/8 and 1/16."""

    stride = 8
    auxiliary: tuple[str, ...] = ("conv_out16", "conv_out32")

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.sp = SpatialPath()
        self.ffm = Fuse(256)
        self.conv_out = Head(256, 256, classes)
        self.conv_out16 = Head(128, 64, classes)
        self.conv_out32 = Head(128, 64, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        c8, c16 = self.cp(x)
        out = self.conv_out(self.ffm(self.sp(x), c8))
        return (out, self.conv_out16(c8), self.conv_out32(c16)) if self.training else out
