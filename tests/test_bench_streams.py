"""`streamseg bench streams`, `bench stages` and what they share. Real pipelines for a second or two; no speed is
asserted, but that what is far too much is found to be too much."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest
import zmq
from clips import Clips, read_number
from daemon import StartServer
from processes import Finished, StreamsegCli
from reading import until

from streamseg.bench import clip as camera
from streamseg.bench import load, pipeline, streams, trial
from streamseg.bench.load import Load, Reading
from streamseg.bench.percentiles import percentiles
from streamseg.bench.sink import sink, taken
from streamseg.bench.trial import Trial
from streamseg.errors import ConfigError
from streamseg.ingest.frames import file_frames
from streamseg.metrics import StreamMetrics
from streamseg.source import parse

SHORT = ("--seconds", "2.5", "--warm-up", "0.5", "--max", "2", "--p95-ms", "5000", "--fps", "2")
"""So few pictures a second that even a busy machine drops none."""
TOO_SLOW = ("--set", "streams[0].tiling={columns: 8, rows: 8}", "--set", "engine.size=[480, 288]")
"""64 large tiles a picture: no engine can follow, and live frames do not wait."""


# The search


@pytest.mark.parametrize("limit", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("true_most", [0, 1, 2, 3, 5, 7, 8, 63, 64, 65, 999, 1000, 5000])
def test_the_most_is_found_and_nothing_is_asked_twice(true_most: int, limit: int) -> None:
    asked: list[int] = []

    def holds(n: int) -> bool:
        asked.append(n)
        return n <= true_most

    assert streams._most(holds, limit) == min(true_most, limit)
    assert len(asked) == len(set(asked))
    assert all(1 <= n <= limit for n in asked)
    assert len(asked) <= 2 * max(1, min(true_most, limit)).bit_length() + 1


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([float(n) for n in range(1, 101)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([3.0, 1.0]) == {"p50": 1.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([7.04]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


# What a step is judged by


def seen(p95: float = 50.0, frames: int = 250, lost: int = 0, **dropped: int) -> Trial:
    stages = {"decode": 0.4, "engine": 0.8}
    measured = Load(10.0, 1.2, stages, dict(stages), 0.7, 200.0, dropped, frames)
    latency = {"p50": 20.0, "p95": p95, "p99": 2 * p95}
    return Trial({"name": "tiny"}, 10.0, frames, 25.0, latency, p95, lost, measured)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (seen(), None),
        (seen(p95=100.0), None),
        (seen(p95=100.1), "p95 is 100.1 ms"),
        (seen(superseded=3), "dropped 3 (superseded)"),
        (seen(superseded=3, corrupt=1), "dropped 3 (superseded), 1 (corrupt)"),
        (seen(fps=100, shutdown=2), None),
        (seen(lost=4), "4 messages lost"),
        (seen(frames=240), "too slow: 240 frames of at least 244"),
    ],
)
def test_a_step_holds_when_all_frames_come_in_time(trial: Trial, words: str | None) -> None:
    why = streams.fault(trial, 244.0, 100.0)
    assert (why is None) if words is None else (why is not None and words in why)


def test_no_rate_is_told_of_a_step_that_dropped_frames() -> None:
    good, bad = (
        streams._row(streams.Step(n, streams.fault(each, None, 100), each, {}), 2, 180.0, 0.0)
        for n, each in ((2, seen()), (5, seen(superseded=3)))
    )
    assert (good["holds"], good["fps"]) == (True, 25.0)
    assert (bad["holds"], bad["fps"], bad["dropped"]) == (False, None, {"superseded": 3})
    assert (good["rss_mb_a_stream"], bad["rss_mb_a_stream"]) == (20.0, 5.0)


@pytest.mark.parametrize(
    ("cores", "machine", "busiest", "gpu", "what"),
    [
        (1.9, 1.0, 0.7, None, "CPU (engine)"),
        (1.0, 0.97, 0.7, None, "CPU (engine)"),
        (0.4, 0.97, 0.7, None, "CPU (other processes)"),
        (1.4, 0.7, 0.97, None, "the engine thread"),
        (1.4, 0.7, 0.97, 99.0, "GPU"),
        (0.5, 0.3, 0.4, 20.0, "none (most: engine)"),
    ],
)
def test_what_limits_is_named(cores: float, machine: float, busiest: float, gpu: float | None, what: str) -> None:
    measured = Load(10, cores, {"decode": 0.3, "engine": busiest}, {"engine": busiest}, machine, 200, {}, 250)
    assert load.limit(measured, 2, gpu, 10.0) == what
    assert load.limit(measured, 2, 50.0, 97.0) == "NVDEC"
    assert load.limit(Load(10, 1.0, {}, {}, None, 0.0, {}, 9), 2) == "not known"


def test_a_load_is_what_came_between_two_readings() -> None:
    metrics = {"gate": StreamMetrics()}
    metrics["gate"].entered()
    metrics["gate"].drop("superseded")
    begin = load.reading(metrics)
    assert begin.rss_mb > 1
    for _ in range(3):
        metrics["gate"].entered()
    metrics["gate"].drop("superseded", 2)
    metrics["gate"].drop("fps")
    measured = load.between(begin, load.reading(metrics))
    assert (measured.frames, measured.dropped) == (3, {"superseded": 2, "fps": 1})
    later = Reading(3_000_000_000, 5.0, {("engine", 7): 2.0, ("decode", 8): 1.0}, (6.0, 12.0), 9.0, {}, 50)
    before = Reading(1_000_000_000, 2.0, {("engine", 7): 1.0}, (4.0, 8.0), 8.0, {}, 0)
    known = load.between(before, later)
    assert (known.cores, known.stages, known.machine) == (1.5, {"decode": 0.5, "engine": 0.5}, 0.5)


# What the cameras show


def test_a_clip_is_played_over_and_over_as_it_was_encoded(clip: Clips, tmp_path: Path) -> None:
    made = camera.lasting(parse(str(clip("h264", frames=20, bframes=2))), 2.0, tmp_path)
    frames = list(file_frames(made.path))
    assert (made.fps, made.frames, len(frames)) == (25, 60, 60)
    numbers = [read_number(frame.picture.rgb(160, 120)) for frame in frames]
    assert numbers == [*range(20)] * 3
    steps = {round((b.media_ns - a.media_ns) / 1e6) for a, b in itertools.pairwise(frames)}
    assert steps == {40}


def test_a_clip_may_be_played_at_another_rate(clip: Clips, tmp_path: Path) -> None:
    made = camera.lasting(parse(str(clip("h265", frames=10))), 1.0, tmp_path, fps=50)
    frames = list(file_frames(made.path))
    assert (made.fps, made.codec, len(frames)) == (50, "hevc", 50)
    assert round((frames[-1].media_ns - frames[0].media_ns) / 1e6) == 980


@pytest.mark.parametrize(("kind", "error"), [("audio", ConfigError), ("text", (ConfigError, OSError))])
def test_what_has_no_pictures_cannot_be_played(kind: str, error: Any, clip: Clips, tmp_path: Path) -> None:
    with pytest.raises(error):
        camera.lasting(parse(str(clip(kind))), 1.0, tmp_path)


# The commands


def test_streams_counts_cameras_and_tells_every_step(
    streamseg_here: Callable[..., Finished], tiny_engine: Path
) -> None:
    source = "synthetic://street?size=160x96"
    picture = tiny_engine.parent / "cameras.png"
    done = streamseg_here("bench", "streams", source, "--engine", tiny_engine, *SHORT, "--plot", picture, "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert report["cameras"] == 2
    assert [step["cameras"] for step in report["steps"]] == [1, 2]
    assert (report["overlay"], report["jpeg"], report["decode"], report["motion_skip"]) == (True, True, True, False)
    assert report["engine"]["name"].startswith("tiny@")
    assert report["machine"]["cores"] > 0
    for step in report["steps"]:
        assert step["holds"]
        assert step["frames"] >= 3 * step["cameras"]
        assert 0 < step["p50_ms"] <= step["p95_ms"] <= step["p99_ms"]
        assert step["worst_camera_p95_ms"] <= step["p99_ms"]
        assert step["rss_mb"] > 10
        assert set(step["cpu_stages"]) >= {"decode", "engine", "encode"}
    assert cv2.imread(str(picture)) is not None


def test_streams_tells_no_rate_and_ends_with_1_where_one_camera_is_too_much(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, clip: Clips
) -> None:
    options = ["--fps", 240, "--seconds", 1, "--warm-up", 0.5, "--max", 4, *TOO_SLOW]
    done = streamseg_here("bench", "streams", clip("h264", frames=10), "--engine", tiny_engine, *options)
    assert done.code == 1, done
    assert "not one camera holds a p95 of 100 ms: dropped" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("1 ")]
    assert row.split()[1] == "-"
    assert "superseded" in row
    assert "no: dropped" in row


def test_streams_subscribes_to_what_it_is_told_to(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, clip: Clips
) -> None:
    options = ["--engine", tiny_engine, "--subscribe", "labels", "--watched", 1, *SHORT]
    options += ["--set", "streams[0].motion.skip=true"]
    done = streamseg_here("bench", "streams", clip("h264", frames=10), *options)
    assert done.code == 0, done
    for words in ("overlay off, JPEG off, motion skip on", "labels of 1 of the cameras", "2 FPS", "openvino"):
        assert words in done.stdout
    header = next(line for line in done.stdout.splitlines() if line.startswith("cameras"))
    for column in ("fps", "p50", "p95", "p99", "dropped", "CPU cores", "RSS MB", "MB a stream", "limit", "holds"):
        assert column in header
    assert done.stdout.splitlines()[-1].startswith("2 cameras hold a p95 of 5000 ms")


@pytest.mark.apt("gst-rtsp-server")
def test_a_camera_is_connected_to_as_often_as_it_is_counted(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, rtsp_server: StartServer, clip: Clips
) -> None:
    server = rtsp_server(clip("h264", frames=400, fps=5, width=320, height=180))
    options = ["--engine", tiny_engine, "--seconds", 2, "--warm-up", 0.5, "--max", 2, "--p95-ms", 5000, "--json"]
    done = streamseg_here("bench", "streams", server.url(), *options)
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert (report["cameras"], report["source"]) == (2, server.url())
    assert report["steps"][1]["frames"] >= 6


def test_ctrl_c_ends_every_process_of_a_benchmark_without_a_traceback(
    streamseg_cli: StreamsegCli, tiny_engine: Path, clip: Clips
) -> None:
    options = ["--engine", tiny_engine, "--fps", 2, "--seconds", 60]
    running = streamseg_cli.start("bench", "streams", clip("h264", frames=10), *options)
    running.wait_for_line("1 camera for 60 s")
    until(lambda: connected(running.pid), "its pipeline and subscriber run")
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    done = running.wait(15)
    assert done.code != 0
    assert "Traceback" not in done.stderr


def connected(pid: int) -> bool:
    """Whether two of its descendants talk to each other."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        talking = [c for c in children if any(each.status == "ESTABLISHED" for each in c.net_connections())]
    except psutil.Error:  # one has just ended
        return False
    return len(talking) == 2


def test_streams_says_what_cannot_be_measured(
    streamseg_here: Callable[..., Finished], clip: Clips, tiny_engine: Path
) -> None:
    for arguments, words in (
        (["--subscribe", "frame,nothing"], "--subscribe"),
        (["--plot", "cameras.txt"], "--plot"),
        (["--engine", "nowhere"], "nowhere"),
        (["rtsp://127.0.0.1:9/x", "--fps", "10", "--engine", tiny_engine], "--fps"),
    ):
        done = streamseg_here("bench", "streams", *arguments)
        assert done.code == 2, done
        assert words in done.stderr.splitlines()[-1]


def test_stages_are_measured_each_alone(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, clip: Clips
) -> None:
    file = clip("h264", frames=30, width=160, height=96)
    done = streamseg_here("bench", "stages", file, "--engine", tiny_engine, "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert (report["frames"], report["engine"]["size"]) == (22, "160x96"), "the first eight warm up"
    assert list(report["stages"]) == [
        *("decode", "watch", "gate", "scale", "engine", "labels", "overlay", "jpeg", "label map", "mask", "publish")
    ]
    for stage in report["stages"].values():
        assert 0 <= stage["p50"] <= stage["p95"] <= stage["p99"]
    on_the_way = [each["cpu_ms"] for name, each in report["stages"].items() if name not in ("gate", "mask")]
    assert report["sum_cpu_ms"] == pytest.approx(sum(on_the_way), abs=0.01)
    assert {"date", "cpu", "cores", "versions", "gpus", "load"} <= set(report["machine"])
    street = "synthetic://street?size=160x96"
    printed = streamseg_here("bench", "stages", street, "--engine", tiny_engine, "--frames", 3)
    assert printed.code == 0, printed
    assert ", 3 frames, " in printed.stdout
    assert "decode is the drawing of it" in printed.stdout
    assert "not in the sum" in printed.stdout


def test_pipeline_tells_the_slower_of_two_rounds_and_what_was_not_analysed(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, clip: Clips
) -> None:
    source = clip("h264", frames=40, width=160, height=96)
    options = ["--engine", tiny_engine, "--stage-frames", 8, "--set", "streams[0].fps=12.5", "--rounds", 2]
    done = streamseg_here("bench", "pipeline", source, *options, "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert report["machine"]["versions"]["python"]
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert report["fps"] == min(report["fps_rounds"])
    assert (report["frames"], report["dropped"], report["motion_skip"]) == (20, {"fps": 20}, False)
    assert "here every frame is analysed, but for 20 that the analysis rate left out" in pipeline.text(report)
    assert "here frames on which nothing moved go" in pipeline.text(report | {"motion_skip": True})


def test_pipeline_tells_no_rate_while_frames_are_dropped(
    streamseg_here: Callable[..., Finished], tiny_engine: Path
) -> None:
    options = ["--engine", tiny_engine, "--rounds", 1, "--stage-frames", 8, "--paced", "--seconds", 3]
    refused = streamseg_here("bench", "pipeline", "synthetic://street?size=160x96&fps=60", *options, *TOO_SLOW)
    assert refused.code == 1, refused
    assert "no rate is reported while frames are lost" in refused.stderr


def test_a_file_that_ends_before_its_time_is_measured_as_far_as_it_goes(clip: Clips, tiny_engine: Path) -> None:
    data = {"streams": [{"source": str(clip("h264", frames=30)), "pace": "realtime", "motion": {"skip": False}}]}
    data |= {"engine": {"name": str(tiny_engine)}, "publish": {"bind": "tcp://127.0.0.1:*"}}
    seen = trial.alone(trial.validated(data), 30, warm_up_s=0.2)
    assert 2 < seen.frames < 30
    assert seen.load.seconds < 5
    assert seen.engine["backend"] == "openvino"


def test_a_subscriber_that_gets_no_time_loses_none_of_the_last_messages() -> None:
    header = json.dumps({"kind": "labels", "stream": "gate", "frame": 0, "seq": 0, "captured_ns": 0}).encode()
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.XPUB))
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        sinks = [stack.enter_context(sink(f"tcp://127.0.0.1:{port}", ("labels/",))) for _ in range(5)]
        for _ in sinks:
            assert socket.poll(20_000)
            socket.recv()
        for each in sinks:
            os.kill(each.pid, signal.SIGSTOP)
        for _ in range(20):
            socket.send_multipart([b"labels/gate/", header, b""])
        socket.close(-1)
        context.term()  # all of it lies in the connections' buffers
        pool = stack.enter_context(ThreadPoolExecutor())
        reports = [pool.submit(taken, each) for each in sinks]
        for each in sinks:
            os.kill(each.pid, signal.SIGCONT)
        assert [len(report.result()) for report in reports] == [20] * 5


def test_several_subscribers_share_the_cameras(clip: Clips, tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PER_SUBSCRIBER", 1)
    plan = streams.Plan("", str(tiny_engine), seconds=2, warm_up_s=0.3, kinds=("labels",))
    feed = streams.Feed(str(clip("h264", frames=30, fps=5)), "a clip", 5, paced=True)
    step = streams._step(plan, feed, 2)
    assert step.trial is not None
    assert step.trial.lost == 0
    assert 12 <= step.trial.frames <= 22
