"""ESPNet (Mehta et al., ECCV 2018, arXiv 1803.06815), alpha2 = 2 and alpha3 = 8: narrow, then dilated 3x3 side by side,
each sum added to the next. Weights are named as in sacmehta/ESPNet, so that its checkpoints load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.layers import NormAct

CHANNELS = (16, 64, 128)
"""After levels 1 to 3 (strides 2, 4, 8)."""
BLOCKS = (2, 8)
"""ESP blocks at levels 2 and 3."""
RATES = (1, 2, 4, 8, 16)
EPS = 1e-3  # of the published batch norms


class Conv(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, rate: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2 * rate, rate, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ConvNormAct(Conv):
    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1) -> None:
        super().__init__(cin, cout, kernel, stride)
        self.bn = nn.BatchNorm2d(cout, eps=EPS)
        self.act = nn.PReLU(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Pyramid(nn.Module):
    """Reduce, transform with growing dilation, and join. [N, cin, H, W] -> [N, cout, H / stride, W / stride]."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        narrow = cout // len(RATES)
        self.c1 = Conv(cin, narrow, 3 if stride > 1 else 1, stride)
        self.d1 = Conv(narrow, cout - narrow * (len(RATES) - 1), 3)
        self.d2, self.d4, self.d8, self.d16 = (Conv(narrow, narrow, 3, rate=rate) for rate in RATES[1:])

    def _joined(self, x: Tensor) -> Tensor:
        narrow = self.c1(x)
        sums = [self.d2(narrow)]  # hierarchical feature fusion leaves rate 1 out
        for branch in (self.d4, self.d8, self.d16):
            sums.append(sums[-1] + branch(narrow))
        return torch.cat([self.d1(narrow), *sums], 1)


class Down(Pyramid):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, stride=2)
        self.bn = nn.BatchNorm2d(cout, eps=EPS)
        self.act = nn.PReLU(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self._joined(x)))


class Esp(Pyramid):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout)
        self.bn = NormAct(cout, EPS)
        self._adds = cin == cout

    def forward(self, x: Tensor) -> Tensor:
        joined = self._joined(x)
        return self.bn(joined + x if self._adds else joined)


class Encoder(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        a, b, c = CHANNELS
        self.level1 = ConvNormAct(3, a, 3, 2)
        self.b1 = NormAct(a + 3, EPS)
        self.level2_0 = Down(a + 3, b)
        self.level2 = nn.Sequential(*(Esp(b, b) for _ in range(BLOCKS[0])))
        self.b2 = NormAct(2 * b + 3, EPS)
        self.level3_0 = Down(2 * b + 3, c)
        self.level3 = nn.Sequential(*(Esp(c, c) for _ in range(BLOCKS[1])))
        self.b3 = NormAct(2 * c, EPS)
        self.classifier = Conv(2 * c, classes, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, 3, H, W] -> features at 1/2 and 1/4 and scores at 1/8. The picture itself joins in at 1/2 and 1/4."""
        half = F.avg_pool2d(image, 3, 2, 1)
        s2 = self.b1(torch.cat([self.level1(image), half], 1))
        first = self.level2_0(s2)
        s4 = self.b2(torch.cat([self.level2(first), first, F.avg_pool2d(half, 3, 2, 1)], 1))
        first = self.level3_0(s4)
        return s2, s4, self.classifier(self.b3(torch.cat([first, self.level3(first)], 1)))


class EspNet(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H, W]; in training mode a tuple of that alone, as there
    are no auxiliary heads."""

    stride = 8
    auxiliary: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__()
        a, b, _ = CHANNELS
        self.encoder = Encoder(classes)
        self.level3_C = Conv(2 * b + 3, classes, 1)
        self.br = nn.BatchNorm2d(classes, eps=EPS)
        self.up_l3 = nn.Sequential(_twice(classes))
        self.combine_l2_l3 = nn.Sequential(NormAct(2 * classes, EPS), Esp(2 * classes, classes))
        self.up_l2 = nn.Sequential(_twice(classes), NormAct(classes, EPS))
        self.conv = ConvNormAct(a + 3 + classes, classes, 3)
        self.classifier = _twice(classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor]:
        s2, s4, scores = self.encoder(image)
        deep = self.up_l3(self.br(scores))
        quarter = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(s4), deep], 1)))
        out = self.classifier(self.conv(torch.cat([quarter, s2], 1)))
        return (out,) if self.training else out


def _twice(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)
