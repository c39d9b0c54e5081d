"""DDRNet-23-slim (Hong et al. 2021, arXiv 2101.06085): two resolutions side by side that exchange features twice.
Weights are named as in ydhongHIT/DDRNet, so that its checkpoints load. A ReLU stands before what reads a sum, not after
the sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import conv_bn, initialise, resize
from streamseg.models.resnet import layer, shortcut

WIDTH = 32
POOLS = ((5, 2), (9, 4), (17, 8))
"""Kernel and stride of the pyramid's pools."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to twice `middle` channels beside a shortcut, without a ReLU at its end."""

    def __init__(self, cin: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, 2 * middle, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * middle)
        self.downsample = shortcut(cin, 2 * middle, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return self.bn3(self.conv3(y)) + self.downsample(x)


def stem(width: int) -> nn.Sequential:
    """Two 3x3 convolutions down to 1/4 (published with biases, though a batch norm follows)."""
    parts: list[nn.Module] = []
    for cin in (3, width):
        parts += [nn.Conv2d(cin, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


def activated(cin: int, cout: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Batch norm, ReLU and then the convolution."""
    conv = nn.Conv2d(cin, cout, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(inplace=True), conv)


class Pools(nn.Module):
    """The features themselves and their means over ever larger parts up to the whole picture, `width` channels each."""

    def __init__(self, cin: int, width: int, cout: int) -> None:
        super().__init__()
        self.scale0 = activated(cin, width)
        self.scale1, self.scale2, self.scale3 = (
            nn.Sequential(nn.AvgPool2d(kernel, stride, kernel // 2), *activated(cin, width)) for kernel, stride in POOLS
        )
        self.scale4 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *activated(cin, width))
        self.compression = activated(5 * width, cout)
        self.shortcut = activated(cin, cout)

    def scales(self, x: Tensor) -> list[Tensor]:
        """From the features themselves to the whole picture, all at the size of `x`."""
        pooled = (self.scale1, self.scale2, self.scale3, self.scale4)
        return [self.scale0(x), *(resize(scale(x), x) for scale in pooled)]


class Dappm(Pools):
    """Deep aggregation pyramid pooling: each scale is added to the next smaller one and mixed."""

    def __init__(self, cin: int, width: int, cout: int) -> None:
        super().__init__(cin, width, cout)
        self.process1, self.process2, self.process3, self.process4 = (activated(width, width, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.scales(x)
        parts = [first]
        for process, scale in zip((self.process1, self.process2, self.process3, self.process4), others, strict=True):
            parts.append(process(scale + parts[-1]))
        return self.compression(torch.cat(parts, 1)) + self.shortcut(x)


class Head(nn.Module):
    def __init__(self, cin: int, middle: int, classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, middle, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class DdrNet(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode also the auxiliary logits
    of the finer branch after the first exchange. Names that end in _ are of the finer branch."""

    stride = 8
    auxiliary: tuple[str, ...] = ("seghead_extra",)

    def __init__(self, classes: int) -> None:
        super().__init__()
        w = WIDTH
        self.conv1 = stem(w)
        self.layer1 = layer(w, w, 2, act=False)
        self.layer2 = layer(w, 2 * w, 2, 2, act=False)
        self.layer3 = layer(2 * w, 4 * w, 2, 2, act=False)
        self.layer4 = layer(4 * w, 8 * w, 2, 2, act=False)
        self.layer5 = nn.Sequential(Bottleneck(8 * w, 8 * w, 2))
        self.layer3_ = layer(2 * w, 2 * w, 2, act=False)
        self.layer4_ = layer(2 * w, 2 * w, 2, act=False)
        self.layer5_ = nn.Sequential(Bottleneck(2 * w, 2 * w))
        self.compression3 = conv_bn(4 * w, 2 * w)
        self.compression4 = conv_bn(8 * w, 2 * w)
        self.down3 = conv_bn(2 * w, 4 * w, 3, 2)
        self.down4 = nn.Sequential(*conv_bn(2 * w, 4 * w, 3, 2), nn.ReLU(inplace=True), *conv_bn(4 * w, 8 * w, 3, 2))
        self.spp = Dappm(16 * w, 4 * w, 4 * w)
        self.final_layer = Head(4 * w, 2 * w, classes)
        self.seghead_extra = Head(2 * w, 2 * w, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.layer1(self.conv1(x))
        shared = F.relu(self.layer2(F.relu(x)))
        coarse = self.layer3(shared)
        fine = self.layer3_(shared)
        coarse, early = self._exchanged(coarse, fine, self.down3, self.compression3)
        coarse = self.layer4(F.relu(coarse))
        fine = self.layer4_(F.relu(early))
        coarse, fine = self._exchanged(coarse, fine, self.down4, self.compression4)
        fine = self.layer5_(F.relu(fine))
        context = self.spp(self.layer5(F.relu(coarse)))
        out = self.final_layer(fine + resize(context, fine))
        return (out, self.seghead_extra(early)) if self.training else out

    @staticmethod
    def _exchanged(coarse: Tensor, fine: Tensor, down: nn.Module, up: nn.Module) -> tuple[Tensor, Tensor]:
        """Each branch with the other's features added to its own."""
        return coarse + down(F.relu(fine)), fine + resize(up(F.relu(coarse)), fine)
