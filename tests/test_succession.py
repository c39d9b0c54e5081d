"""A better backend takes over while frames come: the real engine and two real backends of the CPU, the better of which
is made to need preparing, as a TensorRT plan does. No frame is lost, and streams remember."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from clips import Clips
from publishing import eventually
from stills import frame
from taking_over import Held, climb, rung, taken_over
from tiny_engine import COLOURS, NAMES

from streamseg.config import validated
from streamseg.engine.bundle import Bundle, find
from streamseg.engine.engine import Engine
from streamseg.engine.tiling import Tiling, View
from streamseg.pipeline import Pipeline
from streamseg.synthetic import Street
from streamseg.types import U8

STREET = Street(3, 480, 272, 25.0)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """`auto` is OpenVINO, which must be prepared, and ONNX Runtime until then."""
    held = Held()
    climb(monkeypatch, rung("openvino", held), rung("onnxruntime"))
    yield held
    held.go.set()


@pytest.fixture
def engine_of() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(bundle: Bundle, **options: object) -> Engine:
        made.append(Engine(bundle, precision="fp32", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def slow(tmp_path: Path) -> Bundle:
    """An engine that forgets within 0.5 s: an old class wins for 0.35 s against a new one."""
    return tiny_engine.write(tmp_path, smoothing="average", strength=1.0)


@cache
def street(index: int) -> U8:
    return STREET.picture(index)


def plain(name: str, width: int = 160, height: int = 96) -> U8:
    return np.full((height, width, 3), COLOURS[name], np.uint8)


def shown(engine: Engine, *args: object, **options: object) -> str:
    (label,) = np.unique(engine.run([frame(*args, **options)])[0].labels)  # type: ignore[arg-type]
    return NAMES[label]


def test_frames_are_served_at_once_by_what_is_ready(two: Held, engine_of: Callable[..., Engine], slow: Bundle) -> None:
    engine = engine_of(slow)
    engine.improve()
    assert shown(engine, plain("white")) == "white"
    assert engine.backend == "onnxruntime"
    assert two.begun.wait(10)
    taken_over(engine, two)
    assert shown(engine, plain("white"), 0.04) == "white"
    assert engine.backend == "openvino"


def test_streams_remember_across_the_change(two: Held, engine_of: Callable[..., Engine], slow: Bundle) -> None:
    engine = engine_of(slow)
    engine.improve()
    for at in (0.0, 0.04):
        shown(engine, plain("white"), at, stream="a")
        shown(engine, plain("square"), at, stream="b")
    taken_over(engine, two)
    assert shown(engine, plain("black"), 0.08, stream="a") == "white", "one frame does not change the answer"
    assert shown(engine, plain("black"), 0.08, stream="b") == "square"
    assert engine.backend == "openvino"
    assert shown(engine, plain("black"), 0.12, stream="a", state_key=2) == "black", "the stream came back"


def test_labels_are_those_of_a_run_without_a_change(two: Held, engine_of: Callable[..., Engine]) -> None:
    """With the shipped engine, whose memory is the larger one; up to ties."""
    engine, other = engine_of(find("street-edge")), engine_of(find("street-edge"), backend="onnxruntime")
    engine.improve()
    for i in range(8):
        if i == 4:
            taken_over(engine, two)
        mine, without = (e.run([frame(street(4 * i), i / 6)])[0].labels for e in (engine, other))
        assert np.mean(mine == without) >= 0.9998
    assert (engine.backend, other.backend) == ("openvino", "onnxruntime")
    afresh = engine_of(find("street-edge"), backend="onnxruntime").run([frame(street(28), 7 / 6)])[0].labels
    assert np.mean(mine == afresh) < 0.9998, "the pictures do not tell a carried past from none"


def test_every_size_gets_a_successor_of_its_own(two: Held, engine_of: Callable[..., Engine], slow: Bundle) -> None:
    engine = engine_of(slow)
    engine.improve()
    shown(engine, plain("white"), stream="a")
    shown(engine, plain("square", 160, 160), stream="b")
    taken_over(engine, two, 2)
    assert shown(engine, plain("black"), 0.04, stream="a") == "white"
    assert shown(engine, plain("black", 160, 160), 0.04, stream="b") == "square"
    assert sorted(two.prepared) == [(160, 96), (160, 160)]


def test_tiles_remember_too(two: Held, engine_of: Callable[..., Engine], slow: Bundle) -> None:
    engine = engine_of(slow, views={"cam": View(tiling=Tiling(2, 1))})
    engine.improve()
    half = np.hstack([plain("white", 160, 192), plain("square", 160, 192)])
    engine.run([frame(half)])
    before = len(engine._streams["cam"].states)
    taken_over(engine, two)
    labels = engine.run([frame(np.full_like(half, COLOURS["black"]), 0.04)])[0].labels
    assert before == 2
    assert {NAMES[label] for label in np.unique(labels[:, :100])} == {"white"}
    assert {NAMES[label] for label in np.unique(labels[:, -100:])} == {"square"}


def test_a_preparation_that_fails_changes_nothing(
    two: Held, engine_of: Callable[..., Engine], slow: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    two.fault = "no memory left"
    engine = engine_of(slow)
    engine.improve()
    shown(engine, plain("white"))
    two.go.set()
    eventually(lambda: engine._succession._thread is None, "the thread goes on")
    assert shown(engine, plain("black"), 0.04) == "white"
    assert engine.backend == "onnxruntime"
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line == "openvino was not prepared for 160x96, what serves goes on: no memory left"


def test_a_backend_that_cannot_serve_is_passed_over(
    engine_of: Callable[..., Engine], slow: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU whose torch is built for CPUs: `torch-cuda` says so, and OpenVINO serves."""
    climb(monkeypatch, rung("torch-cuda"), rung("openvino"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    engine = engine_of(slow)
    assert shown(engine, plain("white")) == "white"
    assert engine.backend == "openvino"
    shown(engine, plain("white", 160, 160), stream="b")
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.startswith("torch-cuda does not serve: backend 'torch-cuda' needs an NVIDIA GPU")


def test_closing_ends_a_preparation(two: Held, engine_of: Callable[..., Engine], slow: Bundle) -> None:
    engine = engine_of(slow)
    engine.improve()
    engine.prepare()
    assert two.begun.wait(10)
    engine.close()
    assert two.stopped
    assert not [t for t in threading.enumerate() if t.name == "streamseg-build"]


def test_who_measures_gets_no_other_backend_meanwhile(
    two: Held, engine_of: Callable[..., Engine], slow: Bundle
) -> None:
    engine = engine_of(slow)
    shown(engine, plain("white"))
    assert not two.begun.is_set()
    engine.improve()
    assert two.begun.wait(10), "what was wanted before is prepared too"


def test_a_pipeline_under_load_changes_its_backend_and_loses_no_frame(
    two: Held, slow: Bundle, clip: Clips, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamseg")
    file = str(clip("h264", frames=200, width=160, height=96))
    streams = [{"id": name, "source": file} for name in ("a", "b", "c")]
    settings = {"streams": streams, "engine": {"name": str(slow.path)}, "publish": {"bind": "tcp://127.0.0.1:*"}}
    pipeline = Pipeline(validated(settings))
    serving: list[str] = []
    run = pipeline.engine.run

    def counted(frames):  # type: ignore[no-untyped-def]
        if len(serving) == 40:  # under load, at a known frame: what is prepared arrives between two others
            taken_over(pipeline.engine, two)
        results = run(frames)
        serving.extend([pipeline.engine.backend] * len(results))
        return results

    pipeline.engine.run = counted  # type: ignore[method-assign]
    try:
        pipeline.open()
        outcome = pipeline.run()
    finally:
        pipeline.close()
    for stream in outcome.streams.values():
        assert (stream["frames"], stream["published"], stream["dropped"]) == (200, 200, {})
    assert serving == ["onnxruntime"] * 40 + ["openvino"] * 560
    lines = [r.getMessage() for r in caplog.records if "takes over" in r.getMessage()]
    assert lines == ["openvino takes over from onnxruntime at 160x96; 3 streams keep their past"]
