"""ESPNetv2 for segmentation (Mehta et al., CVPR 2019, arXiv 1811.11431), s = 2.0: depthwise dilated convolutions in
parallel, a bottom-up decoder of pyramid pools. Weights are named as in sacmehta/EdgeNets, so that its checkpoints load.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import NormAct, pool

CHANNELS = (32, 128, 256, 512)
"""After levels 1 to 4 (strides 2, 4, 8, 16)."""
BLOCKS = (3, 7)
"""EESP blocks at levels 3 and 4."""
REACH = (13, 11, 9, 7)
"""The largest receptive field, in pixels, of the branches of each level."""
BRANCHES = 4
DECODER = (64, 48, 32)


class ConvAct(nn.Module):
    """`conv`, `bn` and, unless `act` is off, `act` (PReLU)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        if act:
            self.act = nn.PReLU(cout)
        self._acts = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.act(x) if self._acts else x


class Dilated(nn.Module):
    def __init__(self, channels: int, stride: int, rate: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, rate, rate, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Eesp(nn.Module):
    """Reduce, split, transform with growing dilation (each branch added to the next), merge."""

    def __init__(self, cin: int, cout: int, reach: int, stride: int = 1) -> None:
        super().__init__()
        narrow = cout // BRANCHES
        fields = sorted(f if f <= reach else 3 for f in (3 + 2 * i for i in range(BRANCHES)))
        self.proj_1x1 = ConvAct(cin, narrow, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(Dilated(narrow, stride, (f - 1) // 2) for f in fields)
        self.br_after_cat = NormAct(cout)
        self.conv_1x1_exp = ConvAct(cout, cout, 1, groups=BRANCHES, act=False)
        self.module_act = nn.PReLU(cout)  # published, but not used, where the stride is 2
        self._down = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.proj_1x1(x)
        parts = [self.spp_dw[0](narrow)]
        for branch in list(self.spp_dw)[1:]:
            parts.append(branch(narrow) + parts[-1])
        merged = self.conv_1x1_exp(self.br_after_cat(torch.cat(parts, 1)))
        return merged if self._down else self.module_act(merged + x)


class Down(nn.Module):
    """Half the size: average pool beside a strided EESP, plus the picture itself, pooled that far."""

    def __init__(self, cin: int, cout: int, reach: int, halvings: int) -> None:
        super().__init__()
        self.eesp = Eesp(cin, cout - cin, reach, stride=2)
        self.inp_reinf = nn.Sequential(ConvAct(3, 3, 3), ConvAct(3, cout, 1, act=False))
        self.act = nn.PReLU(cout)
        self._halvings = halvings

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        for _ in range(self._halvings):
            image = F.avg_pool2d(image, 3, 2, 1)
        halved = torch.cat([F.avg_pool2d(x, 3, 2, 1), self.eesp(x)], 1)
        return self.act(halved + self.inp_reinf(image))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = CHANNELS
        self.level1 = ConvAct(3, a, 3, 2)
        self.level2_0 = Down(a, b, REACH[0], 2)
        self.level3_0 = Down(b, c, REACH[1], 3)
        self.level3 = nn.Sequential(*(Eesp(c, c, REACH[2]) for _ in range(BLOCKS[0])))
        self.level4_0 = Down(c, d, REACH[2], 4)
        self.level4 = nn.Sequential(*(Eesp(d, d, REACH[3]) for _ in range(BLOCKS[1])))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[N,3,H,W] -> what levels 1, 2, 3 and 4 give."""
        s2 = self.level1(image)
        s4 = self.level2_0(s2, image)
        s8 = self.level3(self.level3_0(s4, image))
        return s2, s4, s8, self.level4(self.level4_0(s8, image))


class Cbr(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(cin, cout, kernel, 1, kernel // 2, groups=groups, bias=False)
        self.cbr = nn.Sequential(conv, nn.BatchNorm2d(cout), nn.PReLU(cout))

    def forward(self, x: Tensor) -> Tensor:
        return self.cbr(x)


class Br(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.br = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.br(x)


class Shuffle(nn.Module):
    """Channels of `groups` groups, interleaved."""

    def __init__(self, groups: int, each: int) -> None:
        super().__init__()
        self._groups, self._each = groups, each

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, self._groups, self._each, h, w).transpose(1, 2).reshape(n, c, h, w)


class PyramidPool(nn.Module):
    """Depthwise convolutions at 2, 1.5, 1, 0.5 and 0.1 times the size, side by side."""

    def __init__(self, cin: int, narrow: int, cout: int, last: bool = False) -> None:
        super().__init__()
        self.projection_layer = Cbr(cin, narrow, 1)
        self.stages = nn.ModuleList(nn.Conv2d(narrow, narrow, 3, 1, 1, groups=narrow, bias=False) for _ in range(5))
        self.merge_layer = nn.Sequential(
            Br(5 * narrow),
            Shuffle(5, narrow),
            Cbr(5 * narrow, narrow, 3, narrow),
            nn.Conv2d(narrow, cout, 1, bias=last),
        )
        if not last:
            self.br = Br(cout)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        twice, half_more, same, half, tenth = self.stages
        h, w = x.shape[2], x.shape[3]
        parts = [F.avg_pool2d(twice(_resize(x, 2 * h, 2 * w)), 2)]
        larger = half_more(_resize(x, (3 * h + 1) // 2, (3 * w + 1) // 2))
        parts.append(pool(larger, h, w).reshape(x.shape))  # says again what ONNX's shape inference loses in `pool`
        parts.append(same(x))
        for stage, divisor in ((half, 2), (tenth, 10)):
            rows, columns = (_at_least_5((n + divisor - 1) // divisor) for n in (h, w))
            parts.append(_resize(stage(pool(x, rows, columns)), h, w))
        out = self.merge_layer(torch.cat(parts, 1))
        return out if self._last else self.br(out)


def _resize(x: Tensor, rows: Any, columns: Any) -> Tensor:
    return F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=True)


def _at_least_5(n: Any) -> Any:
    return n.clamp(min=5) if isinstance(n, Tensor) else max(n, 5)


class Lateral(nn.Module):
    """Encoder features on their way to the decoder: a grouped 3x3, weighed by what the whole picture says."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(cin, cout, 1, bias=False), nn.Sigmoid())
        self.expansion_layer = Cbr(cin, cout, 3, math.gcd(cin, cout))

    def forward(self, x: Tensor) -> Tensor:
        return self.expansion_layer(x) * self.wt_layer(x)


class EspNetV2(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/2, W/2] (the publication resizes these by 2); in
    training mode a tuple of that alone, as there are no auxiliary heads."""

    stride = 8
    auxiliary: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.base_net = Encoder()
        a, b, c, d = CHANNELS
        x, y, z = DECODER
        narrow = max(1, min(classes // 2, 16))
        self.bu_dec_l1 = PyramidPool(d, narrow, x)
        self.bu_dec_l2 = PyramidPool(x, narrow, y)
        self.bu_dec_l3 = PyramidPool(y, narrow, z)
        self.bu_dec_l4 = PyramidPool(z, narrow, classes, last=True)
        self.merge_enc_dec_l2 = Lateral(c, x)
        self.merge_enc_dec_l3 = Lateral(b, y)
        self.merge_enc_dec_l4 = Lateral(a, z)
        self.bu_br_l2, self.bu_br_l3, self.bu_br_l4 = (nn.Sequential(nn.BatchNorm2d(n), nn.PReLU(n)) for n in DECODER)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor]:
        s2, s4, s8, s16 = self.base_net(image)
        x = self.bu_dec_l1(s16)
        x = self.bu_dec_l2(self.bu_br_l2(self._joined(x, self.merge_enc_dec_l2(s8))))
        x = self.bu_dec_l3(self.bu_br_l3(self._joined(x, self.merge_enc_dec_l3(s4))))
        x = self.bu_dec_l4(self.bu_br_l4(self._joined(x, self.merge_enc_dec_l4(s2))))
        return (x,) if self.training else x

    @staticmethod
    def _joined(x: Tensor, lateral: Tensor) -> Tensor:
        return lateral + _resize(x, lateral.shape[2], lateral.shape[3])
