"""Pictures come the right way up, by their rotation tag or the configuration, in colours and size."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import Clips, encode, picture
from reading import Reading

TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
UNIT = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def tagged(path: Path, degrees: int) -> Path:
    """The clip with a display matrix (ISO 14496-12, 6.2.2) in its track header that turns it clockwise."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 0x40000000)
    head, track, rest = path.read_bytes().partition(b"tkhd")
    assert UNIT in rest[:100]
    turned = path.with_stem(f"turned-{degrees}")
    turned.write_bytes(head + track + rest.replace(UNIT, matrix, 1))
    return turned


def first(path: Path, **options: Any) -> tuple[Any, Any]:
    """The first picture's RGB at its own size, and its luma."""
    with Reading(path, **options) as reading:
        shown = next(reading.frames()).picture
        return shown.rgb(shown.width, shown.height).astype(int), shown.planes().y.astype(int)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_recording_is_shown_as_its_rotation_tag_says(degrees: int, clip: Clips) -> None:
    path = clip("h264", frames=2, width=320, height=240)
    seen, luma = first(tagged(path, degrees))
    stored, stored_luma = first(path)
    assert np.abs(seen - cv2.rotate(stored.astype(np.uint8), TURNS[degrees])).mean() < 2
    assert (luma == cv2.rotate(stored_luma.astype(np.uint8), TURNS[degrees])).all()


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuv422p", "yuv444p"])
def test_a_camera_that_hangs_sideways_is_turned_in_every_format(pixel_format: str, tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", "libx264", {"qp": "4"}, pixel_format=pixel_format, frames=1, width=322, height=242)
    seen, _ = first(tmp_path / "clip.mp4", rotate=90)
    wanted = cv2.rotate(picture(0, 322, 242), cv2.ROTATE_90_CLOCKWISE)
    assert seen.shape == (322, 242, 3)
    assert np.abs(seen - wanted).mean() < 4


def test_the_configuration_has_the_last_word_over_the_tag(clip: Clips) -> None:
    path = tagged(clip("h264", frames=2, width=320, height=240), 90)
    assert first(path, rotate=0)[0].shape == (240, 320, 3)
    assert first(path, rotate=180)[0].shape == (240, 320, 3)


def test_a_strip_that_is_too_narrow_once_it_is_turned_is_counted(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", "libx264", {}, pixel_format="yuv420p", frames=3, width=1280, height=16)
    with Reading(tmp_path / "clip.mp4", rotate=90) as reading:
        assert list(reading.frames()) == []
        assert reading.metrics.dropped == {"corrupt": 3}


def test_the_synthetic_street_can_be_turned_too() -> None:
    street = "synthetic://street?size=320x192&frames=1&pace=max"
    assert first(street, rotate=270)[0].shape == (320, 192, 3)  # type: ignore[arg-type]
