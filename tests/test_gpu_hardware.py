"""Frames on a real NVIDIA GPU: it decodes, scales and analyses what the CPU does. Skipped where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from clips import Clips, read_number
from reading import read_all

torch = pytest.importorskip("torch", reason="no torch")
pytest.importorskip("triton", reason="no Triton (pip install 'streamseg[cuda]')")

import nv12 as pictures  # noqa: E402

from streamseg.config import StreamConfig, validated  # noqa: E402
from streamseg.engine.bundle import find  # noqa: E402
from streamseg.engine.engine import Engine  # noqa: E402
from streamseg.ingest.frames import stream_frames  # noqa: E402
from streamseg.ingest.nvdec import missing  # noqa: E402
from streamseg.ingest.record import Recorder  # noqa: E402
from streamseg.nvidia import nv12  # noqa: E402
from streamseg.nvidia.surface import Resident  # noqa: E402
from streamseg.pipeline import Pipeline  # noqa: E402
from streamseg.synthetic import Street  # noqa: E402
from streamseg.types import Frame, Result, Roi  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
GPU = 0
SIZE = (480, 272)


@pytest.fixture
def _nvdec() -> None:
    if why := missing(GPU):
        assert "libnvcuvid" in why, why
        pytest.skip(f"the GPU is here, but cannot decode: {why}")


def frames_of(path: Path, gpu: int | None, most: int = 1000) -> list[Frame]:
    return list(islice(stream_frames(StreamConfig(source=str(path)), gpu=gpu), most))


def test_a_batch_of_full_hd_pictures_is_what_numpy_makes_of_them() -> None:
    made = [pictures.surface(1920, 1080, seed=seed, pitch=2048, device="cuda:0") for seed in range(4)]
    parts = [Roi(0, 0, 1920, 1080), Roi(320, 180, 1280, 720), Roi(0, 0, 1920, 1080), Roi(2, 4, 1000, 600)]
    asked = [Resident(surface, part, SIZE) for surface, part in zip(made, parts, strict=True)]
    out = torch.zeros((4, SIZE[1], SIZE[0], 3), dtype=torch.uint8, device="cuda:0")
    nv12.launch(torch.tensor(nv12.table(asked, [2, 0, 3, 1]), device="cuda:0"), out)
    got = out.cpu().numpy()
    for picture, row in zip(asked, (2, 0, 3, 1), strict=True):
        off = np.abs(got[row] - pictures.reference(picture))
        assert off.max() < 1.01, "a whole level where it lies half way, as sums are rounded in another order"
        assert np.mean(off > 0.51) < 1e-3


@pytest.mark.usefixtures("_nvdec")
@pytest.mark.parametrize("kind", ["h264", "h265"])
@pytest.mark.parametrize("size", [(1920, 1080), (640, 360)], ids=["1080p", "360p"])
def test_nvdec_gives_the_pictures_that_the_cpu_decodes(kind: str, size: tuple[int, int], clip: Clips) -> None:
    """Both standards say what a picture is to the bit."""
    path = clip(kind, frames=30, width=size[0], height=size[1], bframes=2)
    there, here = frames_of(path, GPU), frames_of(path, None)
    assert len(there) == len(here) == 30
    for one, other in zip(there, here, strict=True):
        assert one.picture.surface is not None
        assert one.picture.surface.device == "cuda:0"
        assert (one.pts_ns, one.picture.width, one.picture.height) == (other.pts_ns, *size)
        mine, plain = one.picture.planes(), other.picture.planes()
        assert mine.full_range == plain.full_range
        for got, wanted in ((mine.y, plain.y), (mine.u, plain.u), (mine.v, plain.v)):
            assert np.array_equal(got, wanted)
        assert np.abs(one.picture.thumbnail().astype(int) - other.picture.thumbnail()).max() <= 1
        assert np.abs(one.picture.rgb(*SIZE).astype(int) - other.picture.rgb(*SIZE)).mean() < 2.5


@pytest.mark.usefixtures("_nvdec")
def test_what_the_gpu_does_not_decode_is_decoded_on_the_cpu(clip: Clips, tmp_path: Path) -> None:
    path = clip("h264", frames=10, width=32, height=32)  # below the least that NVDEC takes
    assert [read_number(frame.picture.rgb(320, 80)) for frame in frames_of(path, GPU)] == list(range(10))


@pytest.mark.usefixtures("_nvdec")
def test_a_reader_that_decodes_on_the_gpu_loses_nothing(clip: Clips) -> None:
    reading, _, numbers = read_all(clip("h264", frames=200, width=640, height=360), gpu=GPU)
    assert numbers == list(range(200))
    assert not reading.metrics.dropped


def analysed(engine: Engine, frames: list[Frame], batch: int) -> list[Result]:
    """Each frame as a stream of its own, so that batches are filled."""
    named = [replace(frame, stream=f"cam{index}") for index, frame in enumerate(frames)]
    return [result for at in range(0, len(named), batch) for result in engine.run(named[at : at + batch])]


@pytest.mark.usefixtures("_nvdec")
def test_labels_of_frames_that_never_left_the_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    """On the synthetic street, as what a network is unsure of turns on swscale's 2 levels: 0.996 computed on a CPU."""
    street, path = Street(3, 1280, 720, 25.0), tmp_path / "street.mp4"
    with Recorder(path) as recorder:
        for index in range(16):
            recorder.write(street.picture(10 * index), index * 40_000_000)
    common = {"precision": "fp32", "size": SIZE, "smoothing": "off"}
    on_gpu = Engine(find("street-edge"), backend="torch-cuda", max_batch=8, **common)  # type: ignore[arg-type]
    on_cpu = Engine(find("street-edge"), device="cpu", **common)  # type: ignore[arg-type]
    mine = analysed(on_gpu, frames_of(path, GPU), 8)
    for got, wanted in zip(mine, analysed(on_cpu, frames_of(path, None), 1), strict=True):
        assert np.mean(got.labels == wanted.labels) > 0.985


@pytest.mark.usefixtures("_nvdec")
def test_a_decoder_never_takes_memory_back_that_a_batch_still_reads(clip: Clips) -> None:
    """Frames are forgotten as soon as they are queued, while the decoder goes on; once with waiting, once without."""
    path = clip("h264", frames=240, width=640, height=360)
    engine = Engine(
        find("street-edge"), backend="torch-cuda", precision="fp16", size=SIZE, smoothing="off", max_batch=4
    )

    def labels(wait: bool) -> list[np.ndarray]:
        kept = []
        source = stream_frames(StreamConfig(source=str(path)), gpu=GPU)
        while batch := list(islice(source, 4)):
            makers = [result.make_labels for result in analysed(engine, batch, 4)]
            del batch
            if wait:
                torch.cuda.synchronize()
            kept += [make() for make in makers] if wait else makers  # type: ignore[operator]
        return [each if wait else each() for each in kept]  # type: ignore[operator]

    for hurried, waited in zip(labels(False), labels(True), strict=True):
        assert np.array_equal(hurried, waited)


@pytest.mark.usefixtures("_nvdec")
def test_decoding_again_and_again_costs_no_more_memory(clip: Clips) -> None:
    path = clip("h264", frames=60, width=1280, height=720)

    def used() -> int:
        frames_of(path, GPU)
        torch.cuda.synchronize()
        free, whole = torch.cuda.mem_get_info(GPU)
        return int(whole - free)

    used()
    before = used()
    assert max(used() for _ in range(10)) <= before + (16 << 20)


@pytest.mark.usefixtures("_nvdec")
def test_the_daemon_decodes_scales_and_analyses_on_the_gpu(
    clip: Clips, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    file = str(clip("h264", frames=100, width=1280, height=720))
    streams = [{"id": name, "source": file} for name in ("a", "b", "c")]
    settings = {
        "streams": streams,
        "engine": {"device": "cuda:0", "backend": "torch-cuda"},
        "publish": {"bind": "tcp://127.0.0.1:*"},
    }
    pipeline = Pipeline(validated(settings))
    surfaces: list[object] = []
    monkeypatch.setattr(pipeline.engine, "run", noting(surfaces, pipeline.engine.run))
    try:
        pipeline.open()
        outcome = pipeline.run()
    finally:
        pipeline.close()
    assert [(s["published"], s["dropped"]) for s in outcome.streams.values()] == [(100, {})] * 3
    assert len(surfaces) == 300
    assert all(surface is not None for surface in surfaces)
    assert any("decodes, scales and analyses" in record.getMessage() for record in caplog.records)


def noting(surfaces: list[object], run: Callable[[list[Frame]], list[Result]]) -> Callable[[list[Frame]], list[Result]]:
    def noted(frames: list[Frame]) -> list[Result]:
        surfaces.extend(frame.picture.surface for frame in frames)
        return run(frames)

    return noted


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU or none")
def test_two_gpus_share_the_streams(clip: Clips) -> None:
    file = str(clip("h264", frames=100, width=640, height=360))
    streams = [{"id": name, "source": file} for name in ("a", "b", "c", "d")]
    engine = {"backend": "torch-cuda"}
    pipeline = Pipeline(validated({"streams": streams, "engine": engine, "publish": {"bind": "tcp://127.0.0.1:*"}}))
    assert pipeline.placement.engines[:2] == ["cuda:0", "cuda:1"]
    try:
        pipeline.open()
        outcome = pipeline.run()
    finally:
        pipeline.close()
    assert [(s["published"], s["dropped"]) for s in outcome.streams.values()] == [(100, {})] * 4
