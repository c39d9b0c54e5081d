"""Our own networks by name. Only training and export need this (and torch) at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streamseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def _edge(classes: int) -> nn.Module:
    from streamseg.models.edge import Edge

    return Edge(classes)


def _street(classes: int) -> nn.Module:
    from streamseg.models.street import Street

    return Street(classes)


def _espnetv2(classes: int) -> nn.Module:
    from streamseg.models.espnetv2 import EspNetV2

    return EspNetV2(classes)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"edge": _edge, "street": _street, "espnetv2": _espnetv2}


def build(name: str, classes: int) -> nn.Module:
    """A freshly initialised network. Raises ConfigError naming the choices when there is none of that name."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture {name!r} is unknown; there is: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](classes)
