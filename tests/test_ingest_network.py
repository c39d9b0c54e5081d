"""Ingest over RTSP and HTTP from real servers: streams come back, faults are named, no password is told."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from clips import Clips
from links import hanging_link
from reading import Reading, number_of, read_all, until
from rtsp_server import RtspServer

from streamseg import errors
from streamseg.config import StreamConfig
from streamseg.ingest.reader import open_capture
from streamseg.source import parse

StartServer = Callable[..., RtspServer]
SECRET = "s3cret-Pa55"


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
            time.sleep(3.0)  # longer than a read timeout
            server.thaw()
            until(lambda: reading.metrics.frames > begin + 10, "it goes on")
            frames.close()
        assert reading.states == ["connecting", "running"]

    def test_a_link_that_hangs_within_a_packet_loses_nothing(self, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=200))
        with hanging_link(server.port, 1.0) as (port, hung), Reading(f"rtsp://127.0.0.1:{port}/cam1") as reading:
            frames = reading.frames()
            next(frames)
            assert hung.wait(10)
            begin = reading.metrics.frames
            until(lambda: reading.metrics.frames > begin + 10, "it goes on")
            frames.close()
        assert reading.states == ["connecting", "running"]
        assert "corrupt" not in reading.metrics.dropped

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
    capture = open_capture(StreamConfig(source=source), threading.Event())
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


def test_an_http_source_may_be_silent_for_as_long_as_the_configuration_says(clip: Clips) -> None:
    data = clip("h264", frames=60, movflags="+faststart").read_bytes()
    with serving(of_bytes(data, pause_s=1.0)) as url:
        reading, _, numbers = read_all(f"{url}/clip.mp4", stall_s=1.5)
    assert (reading.states[-1], numbers) == ("ended", list(range(60)))


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
    assert "no data for 1 s" in str(reading.reader.failed)


def test_sound_that_goes_on_without_pictures_is_a_stall(clip: Clips, tmp_path: Path) -> None:
    path = tmp_path / "sound.ts"
    with av.open(path, "w") as both, av.open(clip("h264", frames=30)) as pictures:
        video, sound = both.add_stream_from_template(pictures.streams.video[0]), both.add_stream("mp2", rate=48_000)
        for packet in pictures.demux(video=0):
            if packet.size:
                packet.stream = video
                both.mux(packet)
        for start in range(0, 48_000 * 30, 1152):
            silence = av.AudioFrame(format="s16", layout="stereo", samples=1152)
            silence.sample_rate, silence.pts = 48_000, start
            both.mux(sound.encode(silence))
    data = path.read_bytes()
    gone = threading.Event()

    class Sound(Files):
        """All pictures at once, then sound alone."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            half = len(data) // 2
            with suppress(OSError):
                self.wfile.write(data[:half])
                for at in range(half, len(data), 1316):
                    self.wfile.write(data[at : at + 1316])
                    if gone.wait(0.03):
                        return

    with serving(Sound) as url, Reading(f"{url}/live", stall_s=0.5) as reading:
        frames = reading.frames()
        next(frames)
        until(lambda: "reconnecting" in reading.states, "the stall", timeout=5)
        gone.set()
        frames.close()
    assert reading.events[2][:2] == ("reconnecting", "timeout")
    assert "no picture for" in reading.events[2][2]
