"""The tiny network: the edge network with little at 1/32, attention condensers instead, on the enlarged picture.

In the spirit of AttendSeg (Wen et al. 2021, arXiv 2104.14623), for a program that is under 1 MB with int8 weights. More
than half of the street network's weights are at 1/32; a narrow and a bottleneck block take their place. What else it
has, has that network's names and shapes, so that it starts from a trained one (`init:` of a recipe).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamseg.models.edge import WIDTHS, Edge, Residual
from streamseg.models.layers import ConvBN, resize
from streamseg.models.street import at_half, enlarged


class Condenser(nn.Module):
    """Attention from a condensed map (TinySpeech, Wong et al. 2020): max pool, embed by a grouped and a pointwise
    convolution, expand to the size that it came from, and weigh each value. Starts as the identity.

    The weights are in 0..2 and the sigmoid is on the condensed map, which int8 and small CPUs like.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(ConvBN(channels, 32, 3, groups=4), pointwise := ConvBN(32, channels, 1, act=None))
        nn.init.zeros_(pointwise[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        condensed = F.max_pool2d(x, 3, 2, 1)
        return x * resize(2 * torch.sigmoid(self.embed(condensed)), x)


class Bottleneck(nn.Module):
    """A residual block that is narrow inside (He et al. 2016). Starts as the identity."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            ConvBN(channels, middle, 1),
            ConvBN(middle, middle, 3),
            last := ConvBN(middle, channels, 1, act=None),
        )
        nn.init.zeros_(last[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inside(x))


class Tiny(Edge):
    """Forward: normalised RGB f32 [N, 3, H, W] (H, W multiples of 8) -> logits [N, K, H/2, W/2]; in training mode also
    the auxiliary logits."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, inner=((48, 32), (112, 112), (32,)))  # its last stage is replaced below
        c, d, e = WIDTHS
        # The condensers stand behind the blocks, so that these keep their names.
        self.stage8.append(Condenser(c))
        self.stage16.append(Condenser(d))
        self.stage32 = nn.Sequential(Residual(d, e, middle=32, stride=2), Bottleneck(e, middle=56), Condenser(e))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return at_half(super().forward(enlarged(x)), x)
