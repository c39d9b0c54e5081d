"""Ingest on real files, a real RTSP server and real HTTP: files lose nothing, live streams come back, faults are named,
and no password is told to anybody."""

from __future__ import annotations

import itertools
import logging
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clips, encode, picture, read_number
from rtsp_server import RtspServer

from streamseg import errors
from streamseg.channel import Inbox
from streamseg.config import StreamConfig
from streamseg.ingest.reader import ReadOptions, StreamReader, open_capture
from streamseg.metrics import StreamMetrics
from streamseg.overlay import full_range
from streamseg.source import parse
from streamseg.types import Frame

StartServer = Callable[..., RtspServer]
SECRET = "s3cret-Pa55"


class Reading:
    """One stream as the pipeline reads it, with the test in the place of the engine."""

    def __init__(self, source: object, **options: Any) -> None:
        self.inbox, self.metrics = Inbox(), StreamMetrics()
        self.events: list[tuple[str, str, str]] = []
        parsed, chosen = parse(str(source)), ReadOptions(**options)
        self.reader = StreamReader("cam", parsed, chosen, self.inbox, self.metrics, self._announce)

    def _announce(self, stream: str, epoch: int, state: str, reason: str, detail: str) -> None:
        self.events.append((state, reason, detail))

    @property
    def states(self) -> list[str]:
        return [state for state, _, _ in self.events]

    def __enter__(self) -> Reading:
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()
        self.inbox.close()
        assert self.reader.join(10), "the ingest thread does not end"
        assert self.reader.crash is None, self.reader.crash
        for _frame in self.inbox.drain():
            self.metrics.drop("shutdown")
        assert self.metrics.in_flight == 0, self.metrics.snapshot()

    def frames(self) -> Iterator[Frame]:
        """To the end of the stream, or without end; each one counts as published when the next is asked for."""
        while batch := self.inbox.take(1, 0):
            try:
                yield batch[0]
            finally:
                self.metrics.publish()


def until(condition: Callable[[], Any], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.01)


def number_of(frame: Frame) -> int:
    return read_number(frame.picture.rgb(160, 120))


def read_all(source: object, **options: Any) -> tuple[Reading, list[Frame], list[int]]:
    """Everything of a source that ends. The numbers are what the pictures themselves say."""
    with Reading(source, **options) as reading:
        frames = []
        numbers = []
        for frame in reading.frames():
            frames.append(frame)
            numbers.append(number_of(frame))
    return reading, frames, numbers


# Files


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("h264", {}),
        ("h264", {"bframes": 2}),
        ("h264", {"bframes": 2, "container": "mkv"}),
        ("h264", {"container": "ts"}),
        ("h265", {}),
        ("h265", {"bframes": 2}),
        ("mjpeg", {}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_file_delivers_every_frame_once_and_in_order(kind: str, options: dict[str, Any], clip: Clips) -> None:
    reading, frames, numbers = read_all(clip(kind, frames=40, **options))
    assert numbers == [frame.number for frame in frames] == list(range(40))
    assert reading.metrics.snapshot() | {"fps": 0} == {
        "state": "ended", "fps": 0, "frames": 40, "published": 40, "dropped": {},
    }  # fmt: skip
    assert reading.states == ["connecting", "running", "ended"]
    assert {frame.clock for frame in frames} == {"file"}
    assert {b.media_ns - a.media_ns for a, b in itertools.pairwise(frames)} <= {39_999_999, 40_000_000, 40_000_001}


@pytest.mark.shared
def test_a_real_camera_s_hevc_clip_delivers_every_frame(shared_data: Path) -> None:
    with Reading(shared_data / "clips" / "overhead-cars-432p.mp4") as reading:
        count = sum(1 for _ in reading.frames())
    assert count == reading.metrics.expected == reading.metrics.published
    assert not reading.metrics.dropped


def test_media_time_follows_the_gaps_of_a_clip(clip: Clips) -> None:
    _, frames, numbers = read_all(clip("gaps", frames=30, missing=range(10, 20)))
    assert numbers == [*range(10), *range(20, 30)]
    assert [f.number for f in frames] == list(range(20))
    steps = [round((b.media_ns - a.media_ns) / 1e6) for a, b in itertools.pairwise(frames)]
    assert steps == [40] * 9 + [440] + [40] * 9


def test_a_change_of_size_is_told_and_forgets_the_past(clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("resized", frames=15))
    assert numbers == list(range(30))
    assert [f.picture.width for f in frames] == [320] * 15 + [480] * 15
    assert len({f.state_key for f in frames[:15]}) == len({f.state_key for f in frames[15:]}) == 1
    assert frames[0].state_key != frames[-1].state_key
    assert ("running", "size-changed", "480x360") in reading.events


def test_damaged_pictures_are_counted_and_the_rest_goes_on(clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("damaged", frames=60))
    seen = reading.metrics.snapshot()
    assert seen["frames"] == 60
    assert seen["dropped"].keys() == {"corrupt"}
    assert seen["published"] + seen["dropped"]["corrupt"] == 60
    assert numbers[:20] == list(range(20))
    assert numbers[-5:] == list(range(55, 60))
    assert seen["state"] == "ended"
    assert [f.number for f in frames] == sorted({f.number for f in frames})


@pytest.mark.parametrize("bframes", [0, 2])
def test_a_file_cut_in_the_middle_gives_what_there_is_and_says_so(bframes: int, clip: Clips, tmp_path: Path) -> None:
    whole = clip("h264", frames=60, bframes=bframes, movflags="+faststart").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    reading, _, numbers = read_all(cut)
    assert len(numbers) >= 15
    assert numbers == list(range(len(numbers)))
    assert isinstance(reading.reader.failed, errors.SourceCorrupt)
    assert "cut short" in str(reading.reader.failed)
    assert reading.states == ["connecting", "running", "failed"]


@pytest.mark.apt("ffmpeg")
def test_a_file_trimmed_without_encoding_is_whole(clip: Clips, tmp_path: Path) -> None:
    """It holds frames before its beginning, from the key frame on, that are decoded but not shown."""
    trimmed = tmp_path / "trimmed.mp4"
    whole = clip("h264", frames=60, bframes=2, gop=25)
    cut = ["ffmpeg", "-v", "error", "-ss", "1.3", "-i", str(whole), "-c", "copy", str(trimmed)]
    subprocess.run(cut, check=True, timeout=60)
    reading, _, numbers = read_all(trimmed)
    assert numbers == list(range(60 - len(numbers), 60))
    assert reading.metrics.expected is not None
    assert len(numbers) < reading.metrics.expected
    assert (reading.states[-1], reading.metrics.dropped) == ("ended", {})


@pytest.mark.parametrize(
    ("fps", "passed"), [(5, range(0, 50, 5)), (12.5, range(0, 50, 2)), (25, range(50)), (60, range(50))]
)
def test_a_rate_limit_passes_evenly_spaced_frames_and_counts_the_rest(fps: float, passed: range, clip: Clips) -> None:
    reading, frames, numbers = read_all(clip("h264", frames=50), fps=fps)
    assert numbers == [f.number for f in frames] == list(passed)
    assert reading.metrics.dropped == ({"fps": 50 - len(passed)} if len(passed) < 50 else {})


def test_a_rate_that_does_not_divide_is_met_on_average(clip: Clips) -> None:
    _, _, numbers = read_all(clip("h264", frames=50), fps=10)
    assert len(numbers) in (20, 21)
    assert {b - a for a, b in itertools.pairwise(numbers)} == {2, 3}


def test_at_its_own_rate_a_file_is_read_as_a_camera_is_and_ends(clip: Clips) -> None:
    begin = time.monotonic()
    reading, _, numbers = read_all(clip("h264", frames=25), pace=True)
    assert time.monotonic() - begin > 0.9
    assert numbers == sorted(numbers)
    assert len(numbers) + reading.metrics.dropped["superseded"] == 25
    assert reading.states[-1] == "ended"


@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_a_finite_synthetic_street_ends(pace: str) -> None:
    with Reading(f"synthetic://street?size=160x96&frames=8&fps=25&pace={pace}") as reading:
        count = sum(1 for _ in reading.frames())
    assert count + reading.metrics.dropped.total() == reading.metrics.frames
    assert reading.states == ["connecting", "running", "ended"]
    if pace == "max":
        assert (count, reading.metrics.dropped) == (8, {})


@pytest.mark.parametrize(
    ("codec", "pixel_format", "size"),
    [
        ("libx264", "yuv420p", (322, 242)),
        ("libx264", "yuvj420p", (322, 242)),
        ("libx264", "yuv422p", (322, 242)),
        ("libx264", "yuv444p", (322, 242)),
        ("mjpeg", "yuvj420p", (321, 241)),
        ("mjpeg", "yuvj422p", (321, 241)),
    ],
)
def test_pictures_have_the_clip_s_colours_in_every_format(
    codec: str, pixel_format: str, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    path = tmp_path / f"clip.{'avi' if codec == 'mjpeg' else 'mp4'}"
    quality = {"qmin": "2", "qmax": "2"} if codec == "mjpeg" else {"qp": "4"}
    encode(path, codec, quality, pixel_format=pixel_format, frames=1, width=width, height=height)
    with Reading(path) as reading:
        (frame,) = reading.frames()
        wanted = picture(0, width, height).astype(int)
        got = frame.picture.rgb(width, height)
        assert got.shape == wanted.shape
        assert got.flags.c_contiguous
        assert np.abs(got - wanted).mean() < 4
        planes = full_range(frame.picture.planes())
        assert planes.y.shape == (height, width)
        assert planes.u.shape == planes.v.shape == (-(-height // 2), -(-width // 2))
        luma = wanted @ [0.299, 0.587, 0.114]
        assert np.abs(planes.y - luma).mean() < 3
        small = frame.picture.rgb(160, 96)
        assert small.shape == (96, 160, 3)


def test_a_reader_waiting_for_room_ends_when_it_is_told_to(clip: Clips) -> None:
    with Reading(clip("h264", frames=30)) as reading:
        until(lambda: reading.metrics.frames == Inbox.FILE_DEPTH + 1, "the line is full")
    assert reading.metrics.dropped == {"shutdown": Inbox.FILE_DEPTH + 1}


# RTSP


@pytest.mark.apt("gst-rtsp-server")
class TestRtsp:
    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    def test_frames_come_over(self, transport: str, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with Reading(server.url(), transport=transport) as reading:
            frames = list(itertools.islice(reading.frames(), 20))
            numbers = [number_of(frame) for frame in frames]
            assert numbers == sorted(set(numbers))
            assert [f.number for f in frames] == sorted({f.number for f in frames})
        assert {f.clock for f in frames} == {"host"}
        assert abs(time.time_ns() - frames[-1].captured_ns) < 5e9
        assert reading.states == ["connecting", "running"]

    def test_a_slow_engine_gets_the_newest_frame_and_the_others_are_counted(
        self, clip: Clips, rtsp_server: StartServer
    ) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with Reading(server.url()) as reading:
            frames = reading.frames()
            first = next(frames)
            for _ in range(4):
                entered = reading.metrics.frames
                until(lambda entered=entered: reading.metrics.frames >= entered + 5, "five more frames")
                newest = next(frames)
                assert newest.number >= entered + 3  # at most the one that was just being handed over is newer
            assert newest.number >= first.number + 16
            frames.close()
        seen = reading.metrics.snapshot()
        assert seen["dropped"]["superseded"] >= 12
        assert seen["published"] + sum(seen["dropped"].values()) == seen["frames"]

    def test_a_server_that_was_killed_comes_back(self, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with Reading(server.url(), backoff_s=(0.1, 0.4)) as reading:
            frames = reading.frames()
            before = list(itertools.islice(frames, 10))[-1]
            server.kill()
            until(lambda: "reconnecting" in reading.states, "the loss is told")
            server.start()
            after = next(frame for frame in frames if frame.state_key != before.state_key)
            more = next(frames)
            frames.close()
        assert after.number > before.number
        assert after.epoch == before.epoch
        assert after.media_ns > before.media_ns
        assert more.state_key == after.state_key
        assert reading.states == ["connecting", "running", "reconnecting", "running"]
        assert reading.events[2][1] == "lost"

    def test_a_camera_that_hangs_is_opened_again(self, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with Reading(server.url(), stall_s=1.0, backoff_s=(0.1, 0.4)) as reading:
            frames = reading.frames()
            before = next(frames)
            server.freeze()
            until(lambda: "reconnecting" in reading.states, "the stall is told")
            server.thaw()
            next(frame for frame in frames if frame.state_key != before.state_key)
            frames.close()
        assert reading.events[2][:2] == ("reconnecting", "timeout")
        assert reading.states[3] == "running"

    def test_a_short_hang_loses_the_connection_not(self, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with Reading(server.url(), stall_s=30) as reading:
            frames = reading.frames()
            next(frames)
            server.freeze()
            begin = reading.metrics.frames
            time.sleep(2.2)  # longer than two read timeouts of 0.5 s, each of which PyAV waits twice
            server.thaw()
            until(lambda: reading.metrics.frames > begin + 10, "it goes on")
            frames.close()
        assert reading.states == ["connecting", "running"]

    @pytest.mark.parametrize("give_up", [True, False])
    def test_a_first_opening_that_fails_is_final_only_where_asked(self, give_up: bool, free_port: int) -> None:
        url = f"rtsp://bob:{SECRET}@127.0.0.1:{free_port}/cam1"
        with Reading(url, give_up_unopened=give_up, backoff_s=(0.01, 0.02)) as reading:
            until(lambda: len(reading.events) == 2, "the fault is told")
            if give_up:
                assert list(reading.frames()) == []
            else:
                time.sleep(0.3)  # a dozen attempts more
        assert reading.states == ["connecting", "failed" if give_up else "reconnecting"]
        assert reading.events[1][1] == "refused"
        assert SECRET not in str(reading.events)


# Faults: what is raised, and what it does not tell.


def open_and_read(source: str) -> None:
    capture = open_capture(parse(source), ReadOptions(), threading.Event())
    try:
        list(itertools.islice(capture, 3))
    finally:
        capture.close()


def fault(source: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> errors.SourceError:
    """The error of opening `source` and reading its first frames, after a look into everything that it could tell."""
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.SourceError) as caught:
        open_and_read(source)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.args)
    told += repr(parse(source)) + repr(StreamConfig(source=source)) + caplog.text + "".join(capfd.readouterr())
    assert SECRET not in told
    assert "\n" not in str(caught.value)
    return caught.value


Capfd = pytest.CaptureFixture[str]


@pytest.mark.apt("gst-rtsp-server")
@pytest.mark.parametrize("method", ["basic", "digest"])
def test_a_wrong_password_is_told_as_such(
    method: str, rtsp_server: StartServer, caplog: pytest.LogCaptureFixture, capfd: Capfd
) -> None:
    server = rtsp_server(user="bob", password="right", method=method)
    error = fault(server.url(password=SECRET), caplog, capfd)
    assert isinstance(error, errors.SourceUnauthorised)
    assert "user name or password" in str(error)


@pytest.mark.apt("gst-rtsp-server")
def test_a_wrong_path_and_a_hung_server_are_told_as_such(
    rtsp_server: StartServer, caplog: pytest.LogCaptureFixture, capfd: Capfd
) -> None:
    server = rtsp_server(user="bob", password=SECRET)
    error = fault(server.url("/nope"), caplog, capfd)
    assert isinstance(error, errors.SourceNotFound)
    assert "path" in str(error)
    server.freeze()
    error = fault(server.url(), caplog, capfd)
    assert isinstance(error, errors.SourceTimeout)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_closed_port_is_refused(scheme: str, free_port: int, caplog: pytest.LogCaptureFixture, capfd: Capfd) -> None:
    error = fault(f"{scheme}://bob:{SECRET}@127.0.0.1:{free_port}/cam1", caplog, capfd)
    assert isinstance(error, errors.SourceRefused)
    assert "port" in str(error)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_name_that_nobody_knows_is_told(scheme: str, caplog: pytest.LogCaptureFixture, capfd: Capfd) -> None:
    error = fault(f"{scheme}://bob:{SECRET}@no-such-host.invalid/cam1", caplog, capfd)
    assert isinstance(error, errors.SourceRefused)
    assert "resolved" in str(error)


def test_a_server_that_speaks_no_rtsp_is_told(caplog: pytest.LogCaptureFixture, capfd: Capfd) -> None:
    with listening(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        error = fault(f"rtsp://bob:{SECRET}@127.0.0.1:{port}/cam1", caplog, capfd)
    assert "does not speak RTSP" in str(error)


def test_a_camera_that_is_not_there_is_not_found(caplog: pytest.LogCaptureFixture, capfd: Capfd) -> None:
    error = fault("/dev/video9", caplog, capfd)
    assert isinstance(error, errors.SourceNotFound)
    assert "no such device" in str(error)


# HTTP


class Files(SimpleHTTPRequestHandler):
    """Like `python -m http.server`: no ranges."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def listening(greeting: bytes) -> Iterator[int]:
    """A port where whoever connects is greeted and sent away."""

    def greet() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def of_bytes(data: bytes, *, pause_s: float = 0, send: float = 1.0) -> type[BaseHTTPRequestHandler]:
    """A handler that sends a part of `data` under its whole length, with a pause in the middle."""

    class Handler(Files):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: int(len(data) * send / 2)])
            self.wfile.flush()
            time.sleep(pause_s)
            self.wfile.write(data[int(len(data) * send / 2) : int(len(data) * send)])

    return Handler


def test_a_file_over_http_is_read_like_a_file(clip: Clips) -> None:
    path = clip("h264", frames=60, movflags="+faststart")
    with serving(lambda *a: Files(*a, directory=path.parent)) as url:
        reading, frames, numbers = read_all(f"{url}/{path.name}")
    assert numbers == list(range(60))
    assert (reading.metrics.dropped, reading.states[-1]) == ({}, "ended")
    assert frames[0].clock == "file"


def test_a_slow_http_server_costs_no_frame(clip: Clips) -> None:
    data = clip("h264", frames=60, movflags="+faststart").read_bytes()
    with serving(of_bytes(data, pause_s=2.5)) as url:
        reading, _, numbers = read_all(f"{url}/clip.mp4")
    assert numbers == list(range(60))
    assert reading.states == ["connecting", "running", "ended"]


def test_an_http_recording_that_breaks_off_fails_instead_of_starting_over(clip: Clips) -> None:
    data = clip("h264", frames=60, movflags="+faststart").read_bytes()
    with serving(of_bytes(data, send=0.5)) as url:
        reading, _, numbers = read_all(f"{url}/clip.mp4")
    assert numbers == list(range(len(numbers)))
    assert reading.states == ["connecting", "running", "failed"]


@pytest.mark.parametrize("name", ["clip.mp4", "notes.txt", "index.html"])
def test_text_over_http_is_no_video(name: str, caplog: pytest.LogCaptureFixture, capfd: Capfd) -> None:
    with serving(of_bytes(b"<html>This is not a video.</html>\n" * 100)) as url:
        error = fault(url.replace("://", f"://bob:{SECRET}@") + f"/{name}?token={SECRET}", caplog, capfd)
    assert isinstance(error, errors.SourceNoVideo)


def test_a_path_that_an_http_server_has_not_is_not_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Capfd
) -> None:
    with serving(lambda *a: Files(*a, directory=tmp_path)) as url:
        error = fault(f"{url}/nope.mp4", caplog, capfd)
    assert isinstance(error, errors.SourceNotFound)


def test_an_http_server_that_stalls_for_good_is_a_timeout(clip: Clips) -> None:
    data = clip("h264", frames=60, movflags="+faststart").read_bytes()
    with serving(of_bytes(data, pause_s=2.5)) as url:
        reading, _, _ = read_all(f"{url}/clip.mp4", stall_s=1.0)
    assert isinstance(reading.reader.failed, errors.SourceTimeout)
