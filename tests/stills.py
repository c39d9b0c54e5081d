"""A picture as a frame of a stream, for tests of what an engine makes of it."""

from __future__ import annotations

from streamseg.evaluation.evaluate import Still
from streamseg.types import U8, Frame


def frame(rgb: U8, seconds: float = 0.0, *, stream: str = "cam", state_key: int = 1) -> Frame:
    """`rgb` u8 [H, W, 3] at `seconds` of media time."""
    return Frame(stream, 1, 0, None, 0, "file", 0, 0, round(seconds * 1e9), state_key, Still(rgb))
