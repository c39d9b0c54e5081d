"""FCN-8s (Long et al. 2015, arXiv 1411.4038) on ResNet-18 instead of VGG-16: classes are scored at 1/8, 1/16 and 1/32,
and the scores are summed."""

from __future__ import annotations

from torch import Tensor, nn

from streamseg.models.layers import initialise, resize
from streamseg.models.resnet import ResNet18


class Fcn8s(nn.Module):
    """Forward: normalised RGB f32 [N, 3, H, W] -> logits [N, K, H/8, W/8]; in training mode a tuple of that alone.

    Scores grow by bilinear interpolation; the paper learns that filter, starting from this one, and gains little.
    """

    stride = 8
    auxiliary: tuple[str, ...] = ()

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = ResNet18()
        self.score8 = nn.Conv2d(128, classes, 1)
        self.score16 = nn.Conv2d(256, classes, 1)
        self.score32 = nn.Conv2d(512, classes, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor]:
        s8, s16, s32 = self.backbone(x)
        deep = self.score16(s16)
        deep = deep + resize(self.score32(s32), deep)
        out = self.score8(s8)
        out = out + resize(deep, out)
        return (out,) if self.training else out
