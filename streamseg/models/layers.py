"""What several of the networks are made of. Torch only, no thread of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Sequential):
    """Convolution, batch norm and, unless `act` is None, that activation: the unit that export fuses into one
    convolution."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        act: type[nn.Module] | None = nn.ReLU,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = kernel // 2 * dilation
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm2d(cout), *([act(inplace=True)] if act else []))


def conv_bn(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Without an activation, and initialised with the whole network (`initialise`)."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


class NormAct(nn.Module):
    """Batch norm and PReLU under the names `bn` and `act`, as ESPNet's publications call them."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=eps)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class Separable(nn.Sequential):
    """A depthwise 3x3 and a 1x1 with ReLU; `between` is the activation between the two, if any."""

    def __init__(
        self, cin: int, cout: int, stride: int = 1, dilation: int = 1, between: type[nn.Module] | None = None
    ) -> None:
        super().__init__(ConvBN(cin, cin, 3, stride, between, dilation, groups=cin), ConvBN(cin, cout, 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's bottleneck (Sandler et al. 2018): widen, filter depthwise, narrow without an activation."""

    def __init__(
        self, cin: int, cout: int, stride: int = 1, widen: int = 6, dilation: int = 1, act: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        wide = cin * widen
        first = [ConvBN(cin, wide, 1, act=act)] if widen > 1 else []
        narrow = ConvBN(wide, cout, 1, act=None)
        self.conv = nn.Sequential(*first, ConvBN(wide, wide, 3, stride, act, dilation, wide), *narrow)
        self._adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self._adds else self.conv(x)


class NamedConvBN(nn.Module):
    """Convolution, batch norm and ReLU under the names `conv` and `bn`, as BiSeNet's publication calls them."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def initialise(model: nn.Module) -> None:
    """Every convolution as He et al. 2015 give it for ReLUs, no biases."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the size of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def repeat(x: Tensor, like: Tensor) -> Tensor:
    """The nearest cells, at the size of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def everywhere(x: Tensor, like: Tensor) -> Tensor:
    """One cell [N, C, 1, 1] at the size of `like`."""
    return x.expand(-1, -1, like.shape[2], like.shape[3])


def pool(x: Tensor, rows: Any, columns: Any) -> Tensor:
    """Adaptive average pooling as two products, since ONNX has none for sizes that are not known when exporting."""
    across = _windows(x.shape[3], columns, x)
    return _windows(x.shape[2], rows, x) @ (x @ across.transpose(0, 1))


def _windows(size: Any, outputs: Any, like: Tensor) -> Tensor:
    """[outputs, size]: row i averages from floor(i * size / outputs) up to ceil((i + 1) * size / outputs)."""
    i = torch.arange(outputs, device=like.device).unsqueeze(1)
    begin, end = (i * size) // outputs, ((i + 1) * size + outputs - 1) // outputs
    j = torch.arange(size, device=like.device).unsqueeze(0)
    inside = ((j >= begin) & (j < end)).float()
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)
