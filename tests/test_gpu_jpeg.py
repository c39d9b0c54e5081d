"""Pictures drawn and encoded where they were decoded: by nvImageCodec, on its CPU encoder where there is no GPU."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no torch")
pytest.importorskip("triton", reason="no Triton (pip install 'streamseg[cuda]')")
pytest.importorskip("nvidia.nvimgcodec", reason="no nvImageCodec (pip install 'nvidia-nvimgcodec-cu13[nvjpeg]')")

import nv12 as pictures  # noqa: E402
from results import CLASSES, GreyPicture, result  # noqa: E402

from streamseg.encode import Encoder  # noqa: E402
from streamseg.nvidia import nv12  # noqa: E402
from streamseg.nvidia.jpeg import GpuJpegs  # noqa: E402
from streamseg.nvidia.surface import Surface  # noqa: E402
from streamseg.overlay import annotate, full_range  # noqa: E402
from streamseg.types import U8, Planes, Roi  # noqa: E402

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
WIDTH, HEIGHT = 256, 144


def mild() -> Surface:
    """JFIF's own matrix, so that the CPU path, which takes the planes as they are, means the same; and colours that RGB
    can show: others are clipped on this way, luma and all."""
    made = pictures.surface(WIDTH, HEIGHT, pitch=320, matrix="bt601", device=DEVICE)
    made.y.clamp_(70, 180)
    made.uv.copy_(((made.uv.float() - 128) / 4 + 128).round().byte())
    return made


MADE = mild()


@pytest.fixture(autouse=True)
def _large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setattr(nv12, "BLOCK", (64, 256))


class OnGpu(GreyPicture):
    """A picture with a surface; its planes are its own."""

    @property
    def surface(self) -> Surface:  # type: ignore[override]
        return MADE

    def planes(self) -> Planes:
        uv = MADE.uv.cpu().numpy()
        y = MADE.y.cpu().numpy()
        return Planes(y, np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1]), full_range=False)


def labels() -> U8:
    made = np.zeros((36, 64), np.uint8)
    made[:, 20:40] = 1
    made[:, 40:50] = 2
    made[:, 50:] = 255
    return made


def shown(data: bytes | None) -> np.ndarray:
    assert data is not None
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(int)


def messages(on_gpu: bool, **changes: Any) -> dict[str, np.ndarray]:
    encoder = Encoder(CLASSES, encoding="raw", jpeg_quality=95, undrawn=frozenset({0}), jpeg_on_gpu=on_gpu)
    answer = replace(result(0, picture=OnGpu(WIDTH, HEIGHT)), make_labels=labels, **changes)
    wanted = ("frame/cam1/", "picture/cam1/")
    return {each.topic: shown(each.payload) for each in encoder.messages(answer, lambda topic: topic in wanted)}


@pytest.mark.parametrize("roi", [Roi(0, 0, WIDTH, HEIGHT), Roi(64, 32, 128, 96)], ids=["whole", "part"])
def test_frames_and_pictures_look_as_those_of_the_cpu(roi: Roi) -> None:
    mine, plain = messages(True, roi=roi), messages(False, roi=roi)
    assert set(mine) == set(plain) == {"frame/cam1/", "picture/cam1/"}
    for topic, picture in mine.items():
        assert picture.shape == (HEIGHT, WIDTH, 3)
        off = np.abs(picture - plain[topic])
        assert off.mean() < 2, topic
        assert np.percentile(off, 99) < 24, topic  # chroma at hard edges is scaled otherwise


def test_only_drawn_classes_change_the_picture_and_only_inside_the_part() -> None:
    roi = Roi(64, 32, 128, 96)
    jpegs = GpuJpegs(CLASSES, 90, frozenset({0}))
    drawn = jpegs.drawn(MADE, labels(), roi).cpu().numpy().astype(int)
    plain = jpegs.drawn(MADE, np.full((36, 64), 255, np.uint8), roi).cpu().numpy().astype(int)
    changed = (drawn != plain).any(-1)
    assert changed[32:128, 64 + 40 : 64 + 100].mean() > 0.9, "columns of classes 1 and 2"
    changed[32:128, 64 + 40 : 64 + 100] = False
    assert not changed.any()


def test_luma_stays_as_the_camera_saw_it() -> None:
    data = GpuJpegs(CLASSES, 95).annotated(MADE, np.full((9, 16), 2, np.uint8))
    y = cv2.cvtColor(shown(data).astype(np.uint8), cv2.COLOR_RGB2YCrCb)[..., 0].astype(int)
    planes = OnGpu(WIDTH, HEIGHT).planes()
    off = np.abs(y - full_range(planes).y)
    assert np.median(off) <= 2
    assert np.abs(y - annotate(planes, np.full((9, 16), 2, np.uint8), CLASSES).y).mean() < 3


def test_without_an_encoder_the_cpu_s_is_taken_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "streamseg")
    monkeypatch.setitem(__import__("sys").modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec")
    mine, plain = messages(True), messages(False)
    for topic, picture in mine.items():
        assert np.array_equal(picture, plain[topic])
    assert len(caplog.records) == 1
    assert "JPEGs are made on the CPU" in caplog.text


def test_pictures_in_host_memory_are_the_cpu_s_to_encode() -> None:
    encoder = Encoder(CLASSES, encoding="raw", jpeg_quality=95, jpeg_on_gpu=True)
    answer = result(0, picture=GreyPicture(WIDTH, HEIGHT))
    (made,) = encoder.messages(answer, lambda topic: topic == "picture/cam1/")
    assert shown(made.payload).shape == (HEIGHT, WIDTH, 3)
