"""Pictures that stay where they were decoded, through the engine: on a GPU where there is one, else in host memory, by
the same code: PyAV's planes through DLPack, the (interpreted) kernel into the batch, the batched program."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from functools import cache

import av
import av.error
import numpy as np
import pytest
from clips import Clips

torch = pytest.importorskip("torch", reason="no torch")
pytest.importorskip("triton", reason="no Triton (pip install 'streamseg[cuda]')")

from streamseg import overlay  # noqa: E402
from streamseg.config import StreamConfig  # noqa: E402
from streamseg.engine import backends  # noqa: E402
from streamseg.engine.bundle import find  # noqa: E402
from streamseg.engine.engine import Engine  # noqa: E402
from streamseg.engine.tiling import Tiling, View  # noqa: E402
from streamseg.engine.torch_backend import torch_program  # noqa: E402
from streamseg.engine.torch_device import CpuDevice, CudaDevice  # noqa: E402
from streamseg.engine.torch_intake import fill  # noqa: E402
from streamseg.errors import SourceError  # noqa: E402
from streamseg.ingest import capture  # noqa: E402
from streamseg.ingest.frames import stream_frames  # noqa: E402
from streamseg.ingest.nvdec import GpuPicture, missing, picture_on_gpu  # noqa: E402
from streamseg.ingest.picture import AvPicture, Scaler  # noqa: E402
from streamseg.nvidia import nv12  # noqa: E402
from streamseg.synthetic import Street  # noqa: E402
from streamseg.types import U8, Frame, Picture, Roi  # noqa: E402

WIDTH, HEIGHT = 320, 180
SIZE = (256, 160)
DEVICE = CudaDevice() if torch.cuda.is_available() else CpuDevice()


@pytest.fixture(autouse=True)
def _large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.where.type == "cpu":
        monkeypatch.setattr(nv12, "BLOCK", (64, 128))


@pytest.fixture
def batching(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch backend as on a GPU: in batches, of pictures that lie where it computes."""

    def compiled(model: object, options: backends.CompileOptions) -> backends.Program:
        return torch_program(model, options, DEVICE)  # type: ignore[arg-type]

    monkeypatch.setitem(backends.BACKENDS, "torch", ("torch", compiled))


@cache
def street(index: int) -> U8:
    return Street(3, WIDTH, HEIGHT, 25.0).picture(index)


def decoded(index: int) -> av.VideoFrame:
    """A frame in NV12, as NVDEC gives it."""
    picture = street(index)
    return av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="nv12", dst_colorspace="itu709")


def resident(index: int) -> Picture:
    frame = decoded(index)
    picture = picture_on_gpu(frame, Scaler(), Scaler())
    assert isinstance(picture, GpuPicture)
    if DEVICE.where.type == "cpu":
        return picture
    there = replace(picture.surface, y=picture.surface.y.to(DEVICE.where), uv=picture.surface.uv.to(DEVICE.where))
    return GpuPicture(there, AvPicture(frame, Scaler(), Scaler()))


def hosted(index: int) -> Picture:
    return AvPicture(decoded(index), Scaler(), Scaler())


def frame(picture: Picture, stream: str = "cam") -> Frame:
    return Frame(stream, 0, 0, None, 0, "host", 0, time.monotonic_ns(), 0, 0, picture)


def test_a_picture_on_the_gpu_gives_the_planes_that_the_decoder_made() -> None:
    mine, plain = resident(0).planes(), hosted(0).planes()
    assert mine.full_range == plain.full_range
    for one, other in ((mine.y, plain.y), (mine.u, plain.u), (mine.v, plain.v)):
        assert np.array_equal(one, other)
    assert overlay.full_range(mine).y.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("part", [None, Roi(64, 20, 160, 120)])
def test_rgb_and_thumbnail_are_those_of_the_cpu_path(part: Roi | None) -> None:
    mine, plain = resident(0), hosted(0)
    off = np.abs(mine.rgb(97, 55, part).astype(int) - plain.rgb(97, 55, part))
    assert off.mean() < 0.5
    assert np.percentile(off, 99) <= 5
    assert np.abs(mine.thumbnail().astype(int) - plain.thumbnail()).max() <= 1


@pytest.mark.usefixtures("batching")
def test_the_engine_takes_pictures_from_both_memories_in_one_batch_and_in_their_order() -> None:
    """street-edge on the synthetic street; swscale's levels are up to 2 off, so a few labels at edges differ."""
    engine = Engine(find("street-edge"), backend="torch", precision="fp32", size=SIZE, max_batch=4)
    indices = (0, 60, 120, 90)
    mixed = [resident(0), hosted(60), resident(120), hosted(90)]
    got = engine.run([frame(picture, f"a{at}") for at, picture in enumerate(mixed)])
    wanted = engine.run([frame(hosted(index), f"b{at}") for at, index in enumerate(indices)])
    for mine, plain in zip(got, wanted, strict=True):
        assert np.mean(mine.labels == plain.labels) > 0.985
    assert np.mean(got[0].labels == wanted[2].labels) < 0.97, "the pictures are too alike to tell an order"


@pytest.mark.usefixtures("batching")
def test_a_part_in_tiles_is_scaled_where_it_lies() -> None:
    view = View((0.1, 0.1, 0.8, 0.8), Tiling(2, 1))
    common = {"precision": "fp32", "size": (128, 96), "views": {"*": view}, "max_batch": 4}
    engine = Engine(find("street-edge"), backend="torch", **common)  # type: ignore[arg-type]
    picture = resident(0)
    plan = engine.plan("cam", picture)
    assert plan.tiles > 1
    assert picture.surface is not None
    tiles = plan.on_gpu(picture.surface)
    batch = torch.zeros((len(tiles), plan.tile[1], plan.tile[0], 3), dtype=torch.uint8, device=DEVICE.where)
    fill(batch, tiles, DEVICE)
    assert np.array_equal(DEVICE.download(batch).wait().numpy(), np.stack(plan.cut(plan.rgb(picture))))
    mine, plain = (engine.run([frame(each, name)])[0] for name, each in (("a", picture), ("b", hosted(0))))
    assert mine.roi == plain.roi == plan.part
    assert np.mean(mine.labels == plain.labels) > 0.95  # tiny tiles, of which the network is less sure


def test_an_engine_on_the_cpu_has_pictures_brought_over() -> None:
    engine = Engine(find("street-edge"), backend="openvino", precision="fp32", size=SIZE)
    mine, plain = (engine.run([frame(each, name)])[0] for name, each in (("a", resident(0)), ("b", hosted(0))))
    assert np.mean(mine.labels == plain.labels) > 0.985


def test_pictures_that_the_kernel_does_not_know_are_ordinary_ones() -> None:
    ten_bit = decoded(0).reformat(format="p010le")
    picture = picture_on_gpu(ten_bit, Scaler(), Scaler())
    assert picture.surface is None
    assert np.abs(picture.rgb(97, 55).astype(int) - hosted(0).rgb(97, 55)).mean() < 1


def test_what_nvdec_lacks_is_told() -> None:
    if not torch.cuda.is_available():
        assert "libnvcuvid" in missing(0) or "GPU 0" in missing(0)
    else:
        assert missing(0) == "" or "libnvcuvid" in missing(0)


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOTSUP], ids=["no driver", "a context with other flags"])
def test_a_stream_that_the_gpu_refuses_is_decoded_by_the_cpu(
    refusal: int, clip: Clips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(gpu: int) -> None:
        av.error.err_check(-refusal)

    monkeypatch.setattr(capture, "accelerator", refuse)
    frames = list(stream_frames(StreamConfig(source=str(clip("h264", frames=10))), gpu=0))
    assert len(frames) == 10
    assert "GPU 0 does not decode" in caplog.text


def test_a_fault_of_the_source_is_not_laid_on_the_gpu(
    clip: Clips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(gpu: int) -> None:
        av.error.err_check(-errno.ECONNREFUSED)

    monkeypatch.setattr(capture, "accelerator", lost)
    with pytest.raises(SourceError):
        list(stream_frames(StreamConfig(source=str(clip("h264", frames=10))), gpu=0))
    assert "GPU 0" not in caplog.text
