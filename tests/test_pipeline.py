"""A pipeline in this process, with faults put into its stages: it ends, says which stage died, and leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import Clips

from streamseg.config import validated
from streamseg.errors import FrameError, StageError
from streamseg.ingest import reader
from streamseg.metrics import StreamMetrics
from streamseg.pipeline import Outcome, Pipeline
from streamseg.types import Frame, Result

LIVE = "synthetic://street?size=160x96&fps=25"
Build = Callable[..., Pipeline]


@pytest.fixture
def build(tiny_engine: Path) -> Build:
    """`build(a=source, b=source, wait_subscriber=True)` -> an opened pipeline on a port of its own."""

    def make(wait_subscriber: bool = False, max_wait_ms: float = 5, **sources: object) -> Pipeline:
        settings = {
            "streams": [{"id": name, "source": str(source)} for name, source in sources.items()],
            "engine": {"name": str(tiny_engine), "max_wait_ms": max_wait_ms},
            "publish": {"bind": "tcp://127.0.0.1:*", "wait_subscriber": wait_subscriber},
        }
        pipeline = Pipeline(validated(settings))
        pipeline.open()
        return pipeline

    return make


def run(pipeline: Pipeline) -> Outcome:
    """Runs it in this thread, as the daemon does, and closes it whatever comes."""
    try:
        return pipeline.run()
    finally:
        pipeline.close()


def failing(error: Exception, after: int, then: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(1_000_000))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) == after:
            raise error
        return then(*arguments, **options)

    return call


def test_an_ingest_thread_that_dies_ends_the_run_though_others_live(
    build: Build, clip: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reader.media_time

    def broken(captured: Any, capture: Any, previous_ns: int) -> int:
        if not capture.live:
            raise ZeroDivisionError("a fault of ours")
        return whole(captured, capture, previous_ns)

    monkeypatch.setattr(reader, "media_time", broken)
    with pytest.raises(StageError, match="ingest of bad stopped: ZeroDivisionError: a fault of ours"):
        run(build(good=LIVE, bad=clip("h264")))


def test_an_engine_that_dies_ends_the_run(build: Build, clip: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build(cam=LIVE, file=clip("h264"))
    monkeypatch.setattr(pipeline.engine, "run", failing(MemoryError("boom"), 5, pipeline.engine.run))
    with pytest.raises(StageError, match="inference stopped: MemoryError: boom"):
        run(pipeline)


@pytest.mark.parametrize("wait_subscriber", [False, True])
def test_a_publisher_that_dies_ends_the_run(
    wait_subscriber: bool, build: Build, clip: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build(file=clip("h264", frames=60), wait_subscriber=wait_subscriber)
    monkeypatch.setattr(pipeline.publisher, "wait_for_subscriber", lambda _: True)
    broken = failing(OSError("no memory"), 3, pipeline.publisher._send)
    monkeypatch.setattr(pipeline.publisher, "_send", broken)
    with pytest.raises(StageError, match="publisher stopped: OSError: no memory"):
        run(pipeline)


def test_one_picture_that_cannot_be_used_is_skipped(build: Build, clip: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build(file=clip("h264", frames=20))
    monkeypatch.setattr(pipeline.engine, "run", failing(FrameError("unscalable"), 5, pipeline.engine.run))
    (stream,) = run(pipeline).streams.values()
    assert (stream["frames"], stream["published"], stream["dropped"]) == (20, 19, {"bad-frame": 1})


def test_a_bad_picture_costs_the_other_cameras_of_its_batch_nothing(
    build: Build, clip: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build(good=clip("h264", frames=20), bad=clip("h264", frames=20), max_wait_ms=1000)
    whole, batches = pipeline.engine.run, []

    def picky(frames: list[Frame]) -> list[Result]:
        batches.append(len(frames))
        if any(frame.stream == "bad" for frame in frames):
            raise FrameError("unscalable")
        return whole(frames)

    monkeypatch.setattr(type(pipeline.engine), "max_batch", 2)
    monkeypatch.setattr(pipeline.engine, "run", picky)
    streams = run(pipeline).streams
    assert max(batches) == 2
    assert (streams["good"]["published"], streams["good"]["dropped"]) == (20, {})
    assert (streams["bad"]["published"], streams["bad"]["dropped"]) == (0, {"bad-frame": 20})


def test_a_stop_before_the_start_ends_the_run_at_once(build: Build, clip: Clips) -> None:
    pipeline = build(file=clip("h264", frames=200), wait_subscriber=True)
    pipeline.stop()
    (stream,) = run(pipeline).streams.values()
    assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"] < 200


def test_stops_from_many_threads_are_one_stop(build: Build) -> None:
    pipeline = build(a=LIVE, b=LIVE)
    stoppers = [threading.Timer(0.5, pipeline.stop) for _ in range(5)]
    for stopper in stoppers:
        stopper.start()
    for stream in run(pipeline).streams.values():
        assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"]
    for stopper in stoppers:
        stopper.join()
    pipeline.close()


def test_a_pipeline_that_was_opened_and_never_run_closes(build: Build, clip: Clips) -> None:
    pipeline = build(file=clip("h264"))
    pipeline.close()
    pipeline.close()


def test_the_rate_of_a_stream_falls_once_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("streamseg.metrics.time.monotonic", lambda: now[0])
    metrics = StreamMetrics()
    for number in range(26):
        now[0] = number / 25
        metrics.publish()
    rates = []
    for now[0] in (1.02, 2.0, 4.0, 6.5):
        rates.append(metrics.snapshot()["fps"])
    assert rates[0] == 25
    assert rates[0] > rates[1] > rates[2] > rates[3] == 0
