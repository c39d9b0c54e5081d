"""`synthetic://street`: a street as a fixed surveillance camera sees it, drawn by our own code, with exact labels.

Pure functions of (seed, size, second): any frame can be had at any time, in any thread that owns its `Street`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from streamseg.errors import ConfigError
from streamseg.street.stage import Player, Stage
from streamseg.street.view import cover, paint
from streamseg.types import U8

Pace = Literal["realtime", "max"]
CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""What its label values 0, 1, ... mean; CamVid's classes."""
KEYS = "seed, size, fps, pace, frames"


@dataclass(frozen=True, slots=True)
class StreetSpec:
    """What a `synthetic://street` URL asks for; `frames` None: for ever."""

    seed: int = 0
    width: int = 1280
    height: int = 720
    fps: float = 25.0
    pace: Pace = "realtime"
    frames: int | None = None

    @classmethod
    def from_url(cls, url: str) -> StreetSpec:
        """Parses `synthetic://street?seed=3&size=640x360&fps=10&pace=max&frames=100`; raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme != "synthetic":
            raise ConfigError(f"{url!r}: the scheme is {parts.scheme!r}; it must be synthetic://street")
        if parts.netloc != "street" or parts.path not in ("", "/"):
            raise ConfigError(
                f"{url!r}: there is no scene {parts.netloc + parts.path!r}; the only one is synthetic://street"
            )
        values: dict[str, object] = {}
        for key, text in parse_qsl(parts.query, keep_blank_values=True):
            if key in values:
                raise ConfigError(f"{url!r}: {key} is given twice")
            values |= _setting(url, key, text)
        return cls(**values)  # type: ignore[arg-type]


def _setting(url: str, key: str, text: str) -> dict[str, object]:
    try:
        if key == "size":
            width, height = (int(v) for v in text.split("x"))
            if any(v % 2 or not 64 <= v <= 7680 for v in (width, height)):
                raise ValueError
            return {"width": width, "height": height}
        if key in ("seed", "frames"):
            number = int(text)
            if number < (key == "frames"):
                raise ValueError
            return {key: number}
        if key == "fps":
            if not 0 < float(text) <= 1000:
                raise ValueError
            return {key: float(text)}
        if key == "pace":
            if text not in ("realtime", "max"):
                raise ValueError
            return {key: text}
    except ValueError:
        allowed = {
            "size": "WIDTHxHEIGHT, both even and from 64 to 7680, as in 1280x720",
            "seed": "a whole number from 0",
            "frames": "a whole number from 1",
            "fps": "a number above 0, at most 1000",
            "pace": "realtime or max",
        }[key]
        raise ConfigError(f"{url!r}: {key}={text!r} is not possible; it must be {allowed}") from None
    raise ConfigError(f"{url!r}: unknown key {key!r}; known are {KEYS}")


class Street:
    """Draws frame `index` of the street of `seed`. The first also draws all that stands still (1 to 2 s)."""

    def __init__(self, seed: int = 0, width: int = 1280, height: int = 720, fps: float = 25.0) -> None:
        self.seed, self.width, self.height, self.fps = seed, width, height, fps

    def __repr__(self) -> str:
        return f"Street(seed={self.seed}, {self.width}x{self.height}, fps={self.fps:g})"

    def frame(self, index: int) -> tuple[U8, U8]:
        """RGB u8 [H, W, 3] and class ids u8 [H, W] (CamVid's: 0 sky ... 10 bicyclist)."""
        players = self._cast(index)
        return self._draw(index, players), self._label(players)

    def picture(self, index: int) -> U8:
        """RGB u8 [H, W, 3] alone: cheaper where nobody needs the labels."""
        return self._draw(index, self._cast(index))

    def labels(self, index: int) -> U8:
        """Class ids u8 [H, W] alone."""
        return self._label(self._cast(index))

    @cached_property
    def _stage(self) -> Stage:
        return Stage(self.seed, self.width, self.height)

    def _cast(self, index: int) -> list[Player]:
        return self._stage.players(index / self.fps)

    def _draw(self, index: int, players: list[Player]) -> U8:
        stage = self._stage
        out = stage.rgb.copy()
        for player in players:
            stage.shade(out, player)
        for player in players:
            paint(out, player.shape)
            stage.restore(out, stage.rgb, player)
        return stage.develop(out, index)

    def _label(self, players: list[Player]) -> U8:
        stage = self._stage
        out = stage.labels.copy()
        for player in players:
            cover(out, player.shape, player.label)
            stage.restore(out, stage.labels, player)
        return out
