"""ResNet-18 (He et al. 2016, arXiv 1512.03385) without its classifier. Weights are named as in torchvision."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import conv_bn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `act` off leaves the last ReLU to whoever comes next."""

    def __init__(self, cin: int, cout: int, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample = shortcut(cin, cout, stride)
        self._acts = act

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        return F.relu(y) if self._acts else y


def shortcut(cin: int, cout: int, stride: int) -> nn.Module:
    """Nothing where the shape stays, else a strided 1x1."""
    if stride == 1 and cin == cout:
        return nn.Identity()
    return conv_bn(cin, cout, 1, stride)


def layer(cin: int, cout: int, blocks: int, stride: int = 1, act: bool = True) -> nn.Sequential:
    """`blocks` blocks, the first with the stride; without `act` the last one has no ReLU at its end."""
    rest = [BasicBlock(cout, cout, act=act or i < blocks - 2) for i in range(blocks - 1)]
    return nn.Sequential(BasicBlock(cin, cout, stride, act=act or bool(rest)), *rest)


class ResNet18(nn.Module):
    """Forward: f32 [N, 3, H, W] -> features at strides 8, 16 and 32 of 128, 256 and 512 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = layer(64, 64, 2)
        self.layer2 = layer(64, 128, 2, 2)
        self.layer3 = layer(128, 256, 2, 2)
        self.layer4 = layer(256, 512, 2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        s8 = self.layer2(self.layer1(x))
        s16 = self.layer3(s8)
        return s8, s16, self.layer4(s16)
