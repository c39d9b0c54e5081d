"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamseg.models.layers import ConvBN, InvertedResidual, Separable, everywhere, resize

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
"""Widening, channels, repetitions and stride of MobileNetV2's stages; the fourth stride of 2 is a dilation instead."""
DILATED = 5
"""From this stage on, but for its first block's stride, convolutions are spread by 2."""
RATES = (6, 12, 18)
WIDTH = 256


class MobileNetV2(nn.Module):
    """Forward: f32 [N, 3, H, W] -> features at strides 4 and 16, of 24 and 320 channels. Weights are named as in
    torchvision, whose last 1x1 and classifier are left out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBN(3, 32, 3, 2, nn.ReLU6)]
        cin = 32
        for stage, (widen, cout, repetitions, stride) in enumerate(BLOCKS):
            for i in range(repetitions):
                dilation = 2 if stage > DILATED or (stage == DILATED and i) else 1
                layers.append(InvertedResidual(cin, cout, 1 if i else stride, widen, dilation, nn.ReLU6))
                cin = cout
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.features[:4](x)
        return low, self.features[4:](low)


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1, spread 3x3s (separable) and the whole picture's mean, side by side."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.point = ConvBN(cin, WIDTH, 1)
        self.spread = nn.ModuleList(Separable(cin, WIDTH, dilation=rate, between=nn.ReLU) for rate in RATES)
        self.whole = ConvBN(cin, WIDTH, 1)
        self.project = ConvBN((2 + len(RATES)) * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean((2, 3), keepdim=True))
        parts = [self.point(x), *(spread(x) for spread in self.spread), everywhere(whole, x)]
        return self.project(torch.cat(parts, 1))


class DeepLabV3Plus(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/4, W/4]; in training mode a tuple of that alone."""

    stride = 8
    auxiliary: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = MobileNetV2()
        self.aspp = Aspp(320)
        self.low = ConvBN(24, 48, 1)
        self.decoder = nn.Sequential(
            Separable(WIDTH + 48, WIDTH, between=nn.ReLU), Separable(WIDTH, WIDTH, between=nn.ReLU)
        )
        self.drop = nn.Dropout(0.1)
        self.head = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor]:
        s4, s16 = self.backbone(x)
        low = self.low(s4)
        merged = torch.cat([resize(self.aspp(s16), low), low], 1)
        out = self.head(self.drop(self.decoder(merged)))
        return (out,) if self.training else out
