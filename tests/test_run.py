"""The command line as a user runs it, in processes of its own: what goes in comes out, and it ends when it should."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from clips import Clips, read_number
from processes import Finished, Running, StreamsegCli
from rtsp_server import RtspServer
from tiny_engine import NAMES

import streamseg
from streamseg.received import Message

StartServer = Callable[..., RtspServer]
ANY_PORT = "tcp://127.0.0.1:*"
STOP_SECONDS = 3.0


@pytest.fixture
def run(streamseg_cli: StreamsegCli, tiny_engine: Path) -> Callable[..., Running]:
    """`run(source, ...)` starts `streamseg run` with the tiny engine on a free port."""
    return lambda *arguments: streamseg_cli.start("run", "--engine", tiny_engine, "--bind", ANY_PORT, *arguments)


def endpoint_of(running: Running) -> str:
    return running.wait_for_line(r"publishing on (\S+) ")[1]


def report_of(finished: Finished) -> dict[str, dict[str, object]]:
    assert finished.code == 0, finished
    report: dict[str, dict[str, object]] = json.loads(finished.stdout)
    return report


def everything(endpoint: str, ends: int = 1, **options: object) -> Iterator[Message]:
    """Every message, until `ends` streams have told their end."""
    options = {"kind": ["mask", "labels", "frame", "picture", "event"], "every": True, "timeout": 30.0} | options
    with streamseg.subscribe(endpoint, **options) as messages:
        for message in messages:
            yield message
            if message.header.kind == "event" and message.header["state"] in ("ended", "failed"):
                ends -= 1
                if not ends:
                    return


@contextmanager
def stalled_subscriber(endpoint: str, topic: bytes = b"") -> Iterator[None]:
    """Subscribes, and never reads."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger, sub.rcvhwm, sub.rcvbuf = 0, 1, 4096
        sub.subscribe(topic)
        sub.connect(endpoint)
        assert sub.poll(20_000), "nothing comes"
        yield


# Files


def test_a_file_ends_the_run_with_all_its_frames_published(run: Callable[..., Running], clip: Clips) -> None:
    report = report_of(run(clip("h264", frames=50), "--json").wait())
    ((name, stream),) = report["streams"].items()
    assert name.startswith("h264-frames50")
    assert stream == {"state": "ended", "fps": stream["fps"], "frames": 50, "published": 50, "dropped": {}}
    assert report["encoded"] == {}, "nobody subscribed"
    assert report["failed"] == {}


def test_without_json_the_counts_are_told_in_words(run: Callable[..., Running], clip: Clips) -> None:
    done = run(clip("h264", frames=50), "--fps", 5).wait()
    assert done.code == 0
    assert done.stdout == ""
    assert re.search(r"^h264\S*: 50 frames in, 10 published, dropped: 40 fps$", done.stderr, re.MULTILINE)


def test_a_slow_subscriber_gets_every_message_of_a_lossless_run(run: Callable[..., Running], clip: Clips) -> None:
    running = run(clip("h264", frames=40), "--wait-subscriber", "--json", "--set", "publish.queue_messages=4")
    got: dict[str, list[Message]] = defaultdict(list)
    for message in everything(endpoint_of(running)):
        got[message.topic].append(message)
        time.sleep(0.004)  # the whole takes a tenth of that on the other side
    report = report_of(running.wait())
    (name,) = report["streams"]
    events = got.pop(f"event/{name}/")
    assert [e.header["state"] for e in events][-2:] == ["running", "ended"]
    assert message is events[-1]
    kinds = [f"mask/{c}/{name}/" for c in NAMES] + [f"{kind}/{name}/" for kind in ("labels", "frame", "picture")]
    assert sorted(got) == sorted(kinds)
    for messages in got.values():
        assert [m.header.frame for m in messages] == list(range(40))
        assert [m.header.seq for m in messages] == list(range(40))
        assert not any(m.lost or m.header.replay for m in messages)
    for number, message in enumerate(got[f"picture/{name}/"]):
        assert read_number(message.decode()) == number
    assert report["streams"][name]["published"] == 40  # type: ignore[index]
    assert report["encoded"] == {"mask": 160, "labels": 40, "frame": 40, "picture": 40}


def test_a_lossless_run_goes_on_when_its_subscriber_leaves(run: Callable[..., Running], clip: Clips) -> None:
    running = run(clip("h264", frames=60), "--wait-subscriber", "--json", "--set", "publish.queue_messages=1")
    with streamseg.subscribe(endpoint_of(running), kind="picture", timeout=20) as messages:
        next(messages)
    (stream,) = report_of(running.wait())["streams"].values()
    assert stream["published"] == 60  # type: ignore[index]


def test_the_classes_on_the_wire_are_what_the_picture_shows(run: Callable[..., Running], clip: Clips) -> None:
    running = run(clip("h264", frames=5), "--wait-subscriber", "--smoothing", "off")
    masks: dict[str, np.ndarray] = {}
    for message in everything(endpoint_of(running), kind=["mask", "event"]):
        if message.header.frame == 4 and message.array is not None:
            masks[message.topic.split("/")[1]] = message.array
    assert running.wait().code == 0
    height, width = masks["square"].shape  # the square of frame 4 is 60 pixels wide, 16 from the left, at half height
    assert (width, height) == (160, 120)
    assert masks["square"][64:86, 12:34].all()
    assert masks["square"].mean() < 0.06
    assert masks["white"][10, 2 * 10 + 5] == 1  # 4 is a 1 in the third of 16 blocks
    assert sum(mask.sum() for mask in masks.values()) == width * height


def test_the_wire_carries_what_eval_computes(
    run: Callable[..., Running], streamseg_cli: StreamsegCli, tiny_engine: Path, clip: Clips, tmp_path: Path
) -> None:
    path, saved = clip("h264", frames=40, bframes=2), tmp_path / "labels.npz"
    evaluated = streamseg_cli("eval", tiny_engine, path, "--save-labels", saved)
    assert evaluated.code == 0, evaluated
    running = run(path, "--wait-subscriber")
    labels = [m.array for m in everything(endpoint_of(running), kind=["labels", "event"]) if m.header.kind == "labels"]
    assert running.wait().code == 0
    np.testing.assert_array_equal(np.stack(labels), np.load(saved)["labels"])


@pytest.mark.shared
def test_on_a_real_clip_too_with_the_engine_that_is_shipped(
    streamseg_cli: StreamsegCli, shared_data: Path, tmp_path: Path
) -> None:
    path, saved = shared_data / "clips" / "pedestrians-360p.mp4", tmp_path / "labels.npz"
    evaluated = streamseg_cli("eval", "street-edge", path, "--save-labels", saved)
    assert evaluated.code == 0, evaluated
    running = streamseg_cli.start("run", path, "--wait-subscriber", "--bind", ANY_PORT)
    labels = [m.array for m in everything(endpoint_of(running), kind=["labels", "event"]) if m.header.kind == "labels"]
    assert running.wait().code == 0
    np.testing.assert_array_equal(np.stack(labels), np.load(saved)["labels"])


@pytest.mark.apt("gst-rtsp-server")
def test_over_rtsp_the_wire_carries_what_eval_computes_for_the_same_frames(
    run: Callable[..., Running],
    streamseg_cli: StreamsegCli,
    tiny_engine: Path,
    clip: Clips,
    rtsp_server: StartServer,
    tmp_path: Path,
) -> None:
    path, saved = clip("h264", frames=100), tmp_path / "labels.npz"
    assert streamseg_cli("eval", tiny_engine, path, "--save-labels", saved, "--smoothing", "off").code == 0
    running = run(rtsp_server(path).url(), "--smoothing", "off", "--set", "streams[0].id=gate")
    numbers: dict[int, int] = {}
    labels: dict[int, np.ndarray] = {}
    for message in everything(endpoint_of(running), kind=["labels", "picture", "event"]):
        frame = message.header.frame
        if message.header.kind == "picture" and frame is not None:
            numbers[frame] = read_number(message.decode())
        if message.header.kind == "labels" and frame is not None and message.array is not None:
            labels[frame] = message.array
        if len(numbers.keys() & labels.keys()) >= 30:
            break
    assert running.stop(timeout=STOP_SECONDS).code == 0
    wanted = np.load(saved)["labels"]
    for frame in numbers.keys() & labels.keys():
        np.testing.assert_array_equal(labels[frame], wanted[numbers[frame]])


# Many streams


def test_files_and_a_street_run_side_by_side(
    run: Callable[..., Running], streamseg_cli: StreamsegCli, clip: Clips, tmp_path: Path
) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        f"""
streams:
  - {{id: north, source: {clip("h264", frames=40)}}}
  - {{id: south, source: {clip("h265", frames=30, width=480, height=360)}, fps: 5}}
  - {{id: street, source: "synthetic://street?size=320x180&frames=10&pace=max"}}
publish: {{wait_subscriber: true}}
"""
    )
    running = run(cameras, "--json")
    frames: dict[str, list[int]] = defaultdict(list)
    sizes = set()
    for message in everything(endpoint_of(running), ends=3, kind=["labels", "event"]):
        if message.header.kind == "labels" and message.header.stream and message.header.frame is not None:
            frames[message.header.stream].append(message.header.frame)
            sizes.add((message.header.stream, message.header.width, message.header.height))
    report = report_of(running.wait())
    assert frames == {"north": list(range(40)), "south": list(range(0, 30, 5)), "street": list(range(10))}
    assert sizes == {("north", 160, 120), ("south", 160, 120), ("street", 160, 88)}
    assert report["streams"]["south"]["dropped"] == {"fps": 24}  # type: ignore[index]
    assert report["encoded"] == {"labels": 56}


def test_a_stream_that_fails_leaves_the_others_and_the_run_ends_with_1(
    run: Callable[..., Running], clip: Clips, tmp_path: Path
) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        f"streams: [{{source: {clip('text')}, id: bad}}, {{source: {clip('h264', frames=30)}, id: good}}]"
    )
    done = run(cameras, "--json").wait()
    report = json.loads(done.stdout)
    assert done.code == 1
    assert report["streams"]["good"]["published"] == 30
    assert list(report["failed"]) == ["bad"]
    assert re.search(r"^streamseg: error: .*not a video file$", done.stderr, re.MULTILINE)


@pytest.mark.apt("gst-rtsp-server")
def test_a_camera_that_dies_leaves_the_others_untouched(
    run: Callable[..., Running], clip: Clips, rtsp_server: StartServer, tmp_path: Path
) -> None:
    path = clip("h264", frames=100)
    dying, staying = rtsp_server(path), rtsp_server({"/a": path, "/b": path}, user="bob", password="s3cret")
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        "streams:\n" + "".join(
            f"  - {{id: {name}, source: '{url}'}}\n"
            for name, url in [("dying", dying.url()), ("a", staying.url("/a")), ("b", staying.url("/b"))]
        )
    )  # fmt: skip
    running = run(cameras)
    seen: dict[str, list[Message]] = defaultdict(list)
    states: dict[str, list[str]] = defaultdict(list)
    killed_at = None
    for message in everything(endpoint_of(running), kind=["labels", "event"]):
        stream = str(message.header.stream)
        if message.header.kind == "event":
            states[stream].append(str(message.header["state"]))
        else:
            seen[stream].append(message)
        if killed_at is None and all(len(seen[s]) >= 5 for s in ("dying", "a", "b")):
            dying.kill()
            killed_at = {s: len(seen[s]) for s in ("a", "b")}
        if killed_at and "reconnecting" in states["dying"] and all(len(seen[s]) > killed_at[s] + 20 for s in killed_at):
            break
    done = running.stop(timeout=STOP_SECONDS)
    assert done.code == 0
    assert "s3cret" not in done.stderr
    assert done.stderr.count("dying: reconnecting") == 1
    for stream in ("a", "b"):
        assert not set(states[stream]) & {"reconnecting", "failed"}
        numbers = [m.header.seq for m in seen[stream]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len({m.header.epoch for m in seen[stream]}) == 1


# Ending


def test_nothing_is_encoded_for_a_subscriber_to_the_heartbeat_alone(run: Callable[..., Running]) -> None:
    running = run("synthetic://street?size=320x180&fps=10")
    with streamseg.subscribe(endpoint_of(running), kind="heartbeat", timeout=20) as beats:
        beat = next(b for b in beats if next(iter(b.header["streams"].values()))["published"] >= 5)
    assert beat.header["encoded"] == {}
    assert running.stop(timeout=STOP_SECONDS).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
class TestStopping:
    """Each ends with 0, within three seconds."""

    def test_a_live_stream(self, number: int, run: Callable[..., Running]) -> None:
        running = run("synthetic://street?size=320x180&fps=10", "--json")
        for message in everything(endpoint_of(running), kind=["labels", "event"]):
            if message.header.kind == "labels":
                running.send(number)
                break
        (stream,) = report_of(running.wait(STOP_SECONDS))["streams"].values()
        assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"]  # type: ignore[index]

    def test_while_a_camera_does_not_answer(self, number: int, run: Callable[..., Running]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the system connects, and nobody says a word
            running = run(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/cam1", "--json")
            running.wait_for_line("connecting")
            report_of(running.stop(number, STOP_SECONDS))

    def test_while_a_lossless_run_waits_for_its_subscriber(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        running = run(clip("h264", frames=30), "--wait-subscriber", "--json")
        endpoint_of(running)
        (stream,) = report_of(running.stop(number, STOP_SECONDS))["streams"].values()
        assert stream["frames"] == stream["published"] == 0  # type: ignore[index]

    def test_while_a_stalled_subscriber_blocks_a_lossless_run(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        path = clip("h264", frames=600, width=640, height=480)
        running = run(path, "--wait-subscriber", "--json", "--set", "publish.queue_messages=1")
        with stalled_subscriber(endpoint_of(running)):
            wait_until_idle(running)
            (stream,) = report_of(running.stop(number, STOP_SECONDS))["streams"].values()
        assert 0 < stream["frames"] < 600, "it was not blocked"  # type: ignore[index]
        assert stream["published"] + sum(stream["dropped"].values()) == stream["frames"]  # type: ignore[index]

    def test_while_a_lossless_run_that_is_over_waits_for_a_stalled_subscriber(
        self, number: int, run: Callable[..., Running], clip: Clips
    ) -> None:
        # 90 pictures fit into the 100 places of the queue, but not into the 256 kB of the socket.
        running = run(clip("h264", frames=90, width=640, height=480), "--wait-subscriber", "--json")
        with stalled_subscriber(endpoint_of(running), b"picture/"):
            running.wait_for_line("ended")
            wait_until_idle(running)
            report_of(running.stop(number, STOP_SECONDS))


def wait_until_idle(running: Running, seconds: float = 0.5) -> None:
    """Until it uses (nearly) no processor time any more."""
    process = psutil.Process(running.pid)
    deadline = time.monotonic() + 20
    while True:
        before = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        if sum(process.cpu_times()[:2]) - before <= 0.02:
            return
        assert time.monotonic() < deadline, "still busy"
        assert running.process.poll() is None, running.output


# The other commands


def test_check_names_the_fault_of_each_camera(
    streamseg_cli: StreamsegCli, tiny_engine: Path, clip: Clips, tmp_path: Path, free_port: int
) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        f"""
streams:
  - {{id: good, source: {clip("h264")}}}
  - {{id: refused, source: "rtsp://bob:${{CAMERA_PASSWORD}}@127.0.0.1:{free_port}/x"}}
  - {{id: text, source: {clip("text")}}}
  - {{id: audio, source: {clip("audio")}}}
  - {{id: street, source: "synthetic://street?size=160x96"}}
engine: {{name: {tiny_engine}}}
"""
    )
    done = streamseg_cli("check", cameras, "--json", env={"CAMERA_PASSWORD": "s3cret"})
    assert done.code == 1
    assert "s3cret" not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["engine"].startswith("tiny@")
    reasons = {s["stream"]: s["reason"] for s in report["streams"]}
    assert reasons == {"good": "ok", "refused": "refused", "text": "no-video", "audio": "no-video", "street": "ok"}
    assert "320x240" in report["streams"][0]["detail"]


def test_check_of_good_cameras_ends_with_0(streamseg_cli: StreamsegCli, tiny_engine: Path, clip: Clips) -> None:
    done = streamseg_cli("check", clip("mjpeg"), "--set", f"engine.name={tiny_engine}")
    assert (done.code, done.stderr) == (0, "")
    assert re.fullmatch(r"ok +engine tiny@\w+ on openvino\nok +mjpeg: 320x240, .* first picture in .* s\n", done.stdout)


def test_subscribe_prints_saves_and_ends(
    run: Callable[..., Running], streamseg_cli: StreamsegCli, tmp_path: Path
) -> None:
    endpoint = endpoint_of(run("synthetic://street?size=320x180&fps=20", "--set", "streams[0].id=cam"))
    printed = streamseg_cli("subscribe", endpoint, "--class", "white", "--count", 3, "--timeout", 20)
    assert printed.code == 0, printed
    assert re.fullmatch(r"(mask/white/cam/ +frame \d+ .*\n){3}", printed.stdout)
    as_json = streamseg_cli("subscribe", endpoint, "--kind", "labels", "--count", 2, "--json", "--timeout", 20)
    headers = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [h["kind"] for h in headers] == ["labels", "labels"]
    folder = tmp_path / "saved"
    options = ("--every", "--timeout", 20, "--save", folder)
    assert streamseg_cli("subscribe", endpoint, "--kind", "frame", "--count", 2, *options).code == 0
    assert streamseg_cli("subscribe", endpoint, "--kind", "labels", "--count", 2, *options).code == 0
    names = sorted(re.sub(r"\d+", "N", path.name) for path in folder.iterdir())
    assert (
        names
        == ["frame-cam-N.jpg"] * 2 + ["frame-cam-N.json"] * 2 + ["labels-cam-N.json"] * 2 + ["labels-cam-N.png"] * 2
    )
    quiet = streamseg_cli("subscribe", endpoint, "--stream", "other", "--timeout", 0.5)
    assert (quiet.code, quiet.stdout) == (1, "")
    assert re.fullmatch(r"streamseg: error: .* is alive, but sent nothing on .*\n", quiet.stderr)


def test_subscribe_tells_that_nothing_runs_there(streamseg_cli: StreamsegCli, free_port: int) -> None:
    done = streamseg_cli("subscribe", f"tcp://127.0.0.1:{free_port}", "--timeout", 0.5)
    assert done.code == 1
    assert re.fullmatch(r"streamseg: error: nothing from .* is it running\?\n", done.stderr)


def test_ctrl_c_ends_subscribe_without_a_word(run: Callable[..., Running], streamseg_cli: StreamsegCli) -> None:
    endpoint = endpoint_of(run("synthetic://street?size=320x180&fps=20"))
    subscriber = streamseg_cli.start("subscribe", endpoint, "--kind", "labels")
    subscriber.wait_for_line("labels/")
    done = subscriber.stop(signal.SIGINT, STOP_SECONDS)
    assert (done.code, done.stderr) == (0, "")
