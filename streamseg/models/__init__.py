"""Our own networks by name. Only training and export need this (and torch) at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES: dict[str, str] = {
    "edge": "edge.Edge",
    "edge-wide": "edge.EdgeWide",
    "street": "street.Street",
    "tiny": "tiny.Tiny",
    "fcn-resnet18": "fcn.Fcn8s",
    "bisenetv1": "bisenetv1.BiSeNetV1",
    "bisenetv2": "bisenetv2.BiSeNetV2",
    "ddrnet23-slim": "ddrnet.DdrNet",
    "pidnet-s": "pidnet.PidNet",
    "unet": "unet.UNet",
    "deeplabv3plus-mobilenetv2": "deeplabv3plus.DeepLabV3Plus",
    "fast-scnn": "fast_scnn.FastScnn",
    "espnet": "espnet.EspNet",
    "espnetv2": "espnetv2.EspNetV2",
}
"""Where each is: module and class, imported when it is built. A class says the `stride` that a picture's sides are
multiples of, and how the names of what only training needs begin (`auxiliary`)."""


def build(name: str, classes: int) -> nn.Module:
    """A freshly initialised network. Raises ConfigError naming the choices when there is none of that name."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture {name!r} is unknown; there is: {', '.join(ARCHITECTURES)}")
    module, _, network = ARCHITECTURES[name].partition(".")
    made: nn.Module = getattr(import_module(f"{__name__}.{module}"), network)(classes)
    return made


def auxiliary(model: nn.Module) -> tuple[str, ...]:
    """How the names of the weights begin that only training needs."""
    return tuple(getattr(model, "auxiliary", ()))
