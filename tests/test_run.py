"""The command line as a user runs it, in processes of its own: what goes in comes out, and it ends when it should."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import Clips, read_number
from daemon import ANY_PORT, STOP_SECONDS, endpoint_of, everything, report_of
from processes import Running, StreamsegCli
from rtsp_server import RtspServer
from tiny_engine import NAMES

import streamseg
from streamseg.received import Message

StartServer = Callable[..., RtspServer]


# Files


def test_a_file_ends_the_run_with_all_its_frames_published(run: Callable[..., Running], clip: Clips) -> None:
    report = report_of(run(clip("h264", frames=50), "--json").wait())
    ((name, stream),) = report["streams"].items()
    assert name.startswith("h264-frames50")
    assert stream == {"state": "ended", "fps": stream["fps"], "frames": 50, "published": 50, "reused": 0, "dropped": {}}
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
