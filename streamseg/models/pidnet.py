"""PIDNet-S (Xu et al. 2023, arXiv 2206.02066): DDRNet's two branches (P fine, I coarse) and a third for boundaries (D)
that says, pixel by pixel, which of the two is right. Weights are named as in XuJiacong/PIDNet, so that its checkpoints
load."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.ddrnet import Bottleneck, Head, Pools, activated, stem
from streamseg.models.layers import conv_bn, initialise, resize
from streamseg.models.resnet import BasicBlock, layer

WIDTH = 32


class Pappm(Pools):
    """Parallel aggregation pyramid pooling: DDRNet's, with all scales mixed at once."""

    def __init__(self, cin: int, width: int, cout: int) -> None:
        super().__init__(cin, width, cout)
        self.scale_process = activated(4 * width, 4 * width, 3, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.scales(x)
        mixed = self.scale_process(torch.cat([scale + first for scale in others], 1))
        return self.compression(torch.cat([first, mixed], 1)) + self.shortcut(x)


class Select(nn.Module):
    """Pixel attention: takes over from the coarse branch where both say the like."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.f_x = conv_bn(channels, narrow)
        self.f_y = conv_bn(channels, narrow)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        alike = (self.f_x(fine) * resize(self.f_y(coarse), fine)).sum(1, keepdim=True).sigmoid()
        return (1 - alike) * fine + alike * resize(coarse, fine)


class Balance(nn.Module):
    """Boundary attention: detail at boundaries, context inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = conv_bn(channels, channels)
        self.conv_i = conv_bn(channels, channels)

    def forward(self, fine: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = boundary.sigmoid()
        return self.conv_p((1 - edge) * context + fine) + self.conv_i(context + edge * fine)


class PidNet(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode also the auxiliary logits
    of the P branch.

    The boundary head `seghead_d` is there for published checkpoints only: its own loss needs labels of boundaries, so
    nothing trains it here.
    """

    stride = 8
    auxiliary: tuple[str, ...] = ("seghead_p", "seghead_d")

    def __init__(self, classes: int) -> None:
        super().__init__()
        w = WIDTH
        self.conv1 = stem(w)
        self.layer1 = layer(w, w, 2, act=False)
        self.layer2 = layer(w, 2 * w, 2, 2, act=False)
        self.layer3 = layer(2 * w, 4 * w, 3, 2, act=False)
        self.layer4 = layer(4 * w, 8 * w, 3, 2, act=False)
        self.layer5 = nn.Sequential(Bottleneck(8 * w, 8 * w, 2), Bottleneck(16 * w, 8 * w))
        self.compression3 = conv_bn(4 * w, 2 * w)
        self.compression4 = conv_bn(8 * w, 2 * w)
        self.pag3 = Select(2 * w, w)
        self.pag4 = Select(2 * w, w)
        self.layer3_ = layer(2 * w, 2 * w, 2, act=False)
        self.layer4_ = layer(2 * w, 2 * w, 2, act=False)
        self.layer5_ = nn.Sequential(Bottleneck(2 * w, 2 * w))
        self.layer3_d = BasicBlock(2 * w, w, act=False)
        self.layer4_d = nn.Sequential(Bottleneck(w, w))
        self.layer5_d = nn.Sequential(Bottleneck(2 * w, 2 * w))
        self.diff3 = conv_bn(4 * w, w, 3)
        self.diff4 = conv_bn(8 * w, 2 * w, 3)
        self.spp = Pappm(16 * w, 96, 4 * w)
        self.dfm = Balance(4 * w)
        self.final_layer = Head(4 * w, 128, classes)
        self.seghead_p = Head(2 * w, 128, classes)
        self.seghead_d = Head(2 * w, w, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.layer1(self.conv1(x))
        x = F.relu(self.layer2(F.relu(x)))
        fine, boundary = self.layer3_(x), self.layer3_d(x)
        x = F.relu(self.layer3(x))
        early = F.relu(self.pag3(fine, self.compression3(x)))
        boundary = boundary + resize(self.diff3(x), boundary)
        x = F.relu(self.layer4(x))
        fine = self.pag4(self.layer4_(early), self.compression4(x))
        boundary = self.layer4_d(F.relu(boundary))
        boundary = boundary + resize(self.diff4(x), boundary)
        fine, boundary = self.layer5_(F.relu(fine)), self.layer5_d(F.relu(boundary))
        context = resize(self.spp(self.layer5(x)), fine)
        out = self.final_layer(self.dfm(fine, context, boundary))
        return (out, self.seghead_p(early)) if self.training else out
