"""The engine: every backend gives the same labels, smoothing knows only media time, streams share no past."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_network
import tiny_engine
from stills import frame
from tiny_engine import COLOURS, NAMES

from streamseg.engine.bundle import Bundle, find
from streamseg.engine.engine import FORGET_SECONDS, Engine
from streamseg.engine.program import ProgramSpec, build, in_runs, up_to_scores
from streamseg.errors import BackendUnavailable
from streamseg.synthetic import Street
from streamseg.types import U8

BACKENDS = ("openvino", "onnxruntime", "torch")
SIZES = ((480, 272), (480, 360), (640, 352), (360, 640), (1000, 300))
BLACK, WHITE = NAMES.index("black"), NAMES.index("white")


STREET = Street(3, 480, 272, 25.0)


@cache
def street(index: int, width: int = 480, height: int = 272) -> U8:
    picture = STREET.picture(index)
    return picture if (width, height) == (480, 272) else cv2.resize(picture, (width, height))


def plain(name: str, width: int = 160, height: int = 96) -> U8:
    return np.full((height, width, 3), COLOURS[name], np.uint8)


def shown(engine: Engine, *args: object, **options: object) -> str:
    """The class that a picture of one colour is given, everywhere."""
    labels = engine.run([frame(*args, **options)])[0].labels  # type: ignore[arg-type]
    (label,) = np.unique(labels)
    return NAMES[label]


def agreement(a: Iterable[U8], b: Iterable[U8]) -> float:
    return float(np.mean([np.mean(x == y) for x, y in zip(a, b, strict=True)]))


def fresh(bundle: Bundle, **options: object) -> Engine:
    return Engine(bundle, **({"backend": "onnxruntime", "precision": "fp32"} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return find("street-edge")


@pytest.fixture
def slow(tmp_path: Path) -> Bundle:
    """An engine that forgets within 0.5 s: an old class wins for 0.5 ln 2 = 0.35 s against a new one."""
    return tiny_engine.write(tmp_path, smoothing="average", strength=1.0)


# Parity


@pytest.mark.parametrize("smoothing", ["off", "average", "adaptive"])
def test_the_backends_agree_on_the_street(smoothing: str, shipped: Bundle) -> None:
    """Up to ties: where two classes' scores differ by less than rounding does, either answer is right."""
    labels = {}
    for backend in BACKENDS:
        engine = fresh(shipped, backend=backend, smoothing=smoothing, strength=0.4)
        labels[backend] = [engine.run([frame(street(8 * i), i / 5)])[0].labels for i in range(4)]
        labels[backend] += [engine.run([frame(street(5, *size), 1.0)])[0].labels for size in SIZES]
    assert len(np.unique(labels["torch"][0])) >= 4, "nothing to see in the street"
    assert agreement(labels["openvino"], labels["onnxruntime"]) >= 0.9999
    assert agreement(labels["torch"], labels["onnxruntime"]) >= 0.9999


def test_the_shipped_graph_alone_gives_the_engine_s_labels(shipped: Bundle) -> None:
    """The CPU backends stop before upsampling and argmax, and do these themselves: the graph's own are the same."""
    import onnxruntime

    session = onnxruntime.InferenceSession(shipped.program.SerializeToString(), providers=["CPUExecutionProvider"])
    rgb = street(5)
    inputs = {"frames": rgb[None]}
    if len(session.get_inputs()) > 1:
        channels = session.get_inputs()[1].shape[1]
        inputs |= {"state": np.zeros((1, channels, 68, 120), np.float32), "elapsed_s": np.float32([-1])}
    (labels,) = session.run(["labels"], inputs)
    assert agreement([labels[0]], [fresh(shipped).run([frame(rgb)])[0].labels]) >= 0.9999


@pytest.mark.parametrize(("width", "runs"), [(48, 16), (40, 8), (36, 4), (33, 1)])
def test_normalising_runs_of_pixels_changes_no_value(width: int, runs: int) -> None:
    """What a CPU is given in place of the program's head: as many pixels at a time as the width is a multiple of."""
    import onnxruntime

    spec = ProgramSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "off")
    own = up_to_scores(build(small_network.network(sharpness=1), spec))
    rgb = np.random.default_rng(0).integers(0, 256, (1, 24, width, 3), np.uint8)
    other = in_runs(own, width)
    answers = []
    for model in (own, other):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append(session.run(["scores"], {"frames": rgb})[0])
    np.testing.assert_array_equal(*answers)
    constants = {c.name: c for c in other.graph.initializer}
    assert constants["program/scale"].dims == [3 * runs]


def test_the_default_precision_changes_few_labels(shipped: Bundle) -> None:
    pictures = [street(8 * i) for i in range(3)]
    exact, default = (
        [engine.run([frame(rgb, state_key=i)])[0].labels for i, rgb in enumerate(pictures)]
        for engine in (fresh(shipped), Engine(shipped))
    )
    assert agreement(exact, default) >= 0.98


def test_bf16_that_the_cpu_has_not_is_told(
    slow: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from streamseg.engine import openvino_backend

    monkeypatch.setattr(openvino_backend.openvino.Core, "get_property", lambda *_: ["FP32"])
    fresh(slow, backend="openvino", precision="auto").prepare()
    assert "bf16" not in caplog.text
    fresh(slow, backend="openvino", precision="bf16").prepare()
    assert "this CPU computes no bf16" in caplog.text


def test_openvino_calls_nobody(slow: Bundle) -> None:
    """It would report each use to its maker's web analytics, from a thread of its own."""
    fresh(slow, backend="openvino").prepare()
    assert sys.modules["openvino_telemetry"] is None


def test_signals_are_survived_when_another_thread_has_let_the_engine_go(slow: Bundle) -> None:
    """OpenVINO 2026.4 would take the first thread's signal stack away with it."""
    code = (
        "import gc, signal, sys, threading; from pathlib import Path\n"
        "from streamseg.engine.bundle import Bundle; from streamseg.engine.engine import Engine\n"
        "held = [Engine(Bundle.open(Path(sys.argv[1])), backend='openvino')]; held[0].prepare()\n"
        "thread = threading.Thread(target=lambda: (held.pop().close(), gc.collect())); thread.start(); thread.join()\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "for _ in range(20): signal.raise_signal(signal.SIGINT)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(slow.path)]).returncode == 0


def test_a_backend_without_its_package_says_how_to_get_it(slow: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamseg.engine import backends

    monkeypatch.setitem(backends.BACKENDS, "torch", ("no_such_package", backends.BACKENDS["torch"][1]))
    with pytest.raises(BackendUnavailable, match=r"pip install 'streamseg\[torch\]'"):
        Engine(slow, backend="torch")


# Sizes


@pytest.mark.parametrize(
    ("source", "analysed"),
    [
        ((1920, 1080), (480, 272)),
        ((1280, 720), (480, 272)),
        ((640, 480), (480, 360)),
        ((640, 352), (480, 264)),
        ((1000, 300), (480, 144)),
        ((360, 640), (272, 480)),
        ((101, 77), (480, 368)),
    ],
)
def test_pictures_are_analysed_at_their_own_aspect(
    source: tuple[int, int], analysed: tuple[int, int], shipped: Bundle
) -> None:
    assert fresh(shipped).size_for(*source) == analysed
    result = fresh(shipped).run([frame(street(0, 480, 272) if source == (480, 272) else plain("ground", *source))])[0]
    assert result.labels.shape == analysed[::-1]
    assert result.labels.dtype == np.uint8
    assert (result.roi.x, result.roi.y, result.roi.width, result.roi.height) == (0, 0, *source)
    assert result.engine == shipped.identity


def test_a_size_that_is_asked_for_is_kept(slow: Bundle) -> None:
    assert fresh(slow, size=(200, 104)).run([frame(plain("black", 640, 480))])[0].labels.shape == (104, 200)


# State


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_past_is_forgotten_when_it_means_nothing_any_more(backend: str, slow: Bundle) -> None:
    engine = fresh(slow, backend=backend)
    assert shown(engine, plain("white"), 0.0) == "white"
    assert shown(engine, plain("black"), 0.04) == "white", "one frame of something else does not change the answer"
    assert shown(engine, plain("black"), 0.08, state_key=2) == "black", "the stream came back"
    assert shown(engine, plain("white"), 0.12, state_key=2) == "black"
    assert shown(engine, plain("white", 160, 120), 0.16, state_key=2) == "white", "the picture has another size"
    assert shown(engine, plain("black", 160, 120), 0.20, state_key=2) == "white"
    assert shown(engine, plain("black", 160, 120), 0.20 + FORGET_SECONDS + 0.1, state_key=2) == "black"
    assert shown(engine, plain("white", 160, 120), 1.0, state_key=2) == "white", "time went back"


@pytest.mark.parametrize("backend", BACKENDS)
def test_smoothing_knows_media_time_not_the_frame_rate(backend: str, slow: Bundle) -> None:
    """After a change from white to black the old answer holds for 0.5 ln 2 = 0.347 s, at 25 and at 5 frames/s."""
    answers = {}
    for fps in (25, 5):
        engine = fresh(slow, backend=backend)
        for i in range(2 * fps):
            shown(engine, plain("white"), i / fps)
        times = [2 - 1 / fps + i / fps for i in range(1, fps + 1)]
        since = {round(t - times[0] + 1 / fps, 3): shown(engine, plain("black"), t) for t in times}
        answers[fps] = since
        assert {t for t, name in since.items() if name == "white"} == {t for t in since if t < 0.347}
    assert all(answers[25][t] == name for t, name in answers[5].items())


def test_strength_0_is_off(shipped: Bundle) -> None:
    off, none = fresh(shipped, smoothing="off"), fresh(shipped, smoothing="average", strength=0.0)
    for i in range(3):
        a, b = (engine.run([frame(street(8 * i), i / 5)])[0] for engine in (off, none))
        np.testing.assert_array_equal(a.labels, b.labels)
        assert not a.smoothed
        assert not b.smoothed


def test_off_means_that_a_picture_is_judged_by_itself(shipped: Bundle) -> None:
    engine = fresh(shipped, smoothing="off")
    alone = engine.run([frame(street(16), 0.0)])[0].labels
    engine.run([frame(street(0), 0.04)])
    np.testing.assert_array_equal(engine.run([frame(street(16), 0.08)])[0].labels, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_interleaved_streams_share_no_state(backend: str, shipped: Bundle) -> None:
    pictures = {"a": [street(i) for i in (0, 8, 16)], "b": [street(i)[:, ::-1].copy() for i in (20, 4, 12)]}
    together = fresh(shipped, backend=backend, strength=1.0)
    got: dict[str, list[U8]] = {"a": [], "b": []}
    for i in range(3):
        for stream, mine in got.items():
            mine.append(together.run([frame(pictures[stream][i], i / 10, stream=stream)])[0].labels)
    for stream, mine in got.items():
        alone = fresh(shipped, backend=backend, strength=1.0)
        for i, labels in enumerate(mine):
            np.testing.assert_array_equal(labels, alone.run([frame(pictures[stream][i], i / 10)])[0].labels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_may_be_read_only(backend: str, slow: Bundle) -> None:
    picture = plain("white")
    picture.flags.writeable = False
    assert shown(fresh(slow, backend=backend), picture) == "white"


def test_labels_belong_to_the_caller(slow: Bundle) -> None:
    """A result that waits in a queue must not change when the next frame is computed."""
    for backend in BACKENDS:
        engine = fresh(slow, backend=backend, smoothing="off")
        first = engine.run([frame(plain("white"))])[0].labels
        engine.run([frame(plain("black"))])
        assert (first == WHITE).all()
        assert BLACK != WHITE
