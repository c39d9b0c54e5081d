"""The ground that the other tests stand on: if these fail, believe none of the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from clips import Clips, read_number
from processes import StreamsegCli
from rtsp_server import RtspServer

StartServer = Callable[..., RtspServer]

LEAKY = """
import subprocess, threading, time, zmq
KEPT, GO = zmq.Context(), threading.Event()
def test_socket(): KEPT.socket(zmq.PUB)
def test_thread(): threading.Thread(target=GO.wait, args=[3]).start()
def test_daemon(): threading.Thread(target=time.sleep, args=[9], daemon=True, name="streamseg-x").start()
def test_process(): globals().update(process=subprocess.Popen(["sleep", "9"]))
"""


def number_of(frame: av.VideoFrame) -> int:
    return read_number(frame.to_ndarray(format="rgb24"))


def pytest_in(folder: Path, source: str, env: dict[str, str] | None = None) -> str:
    """Runs `source` as a test file under our conftest; gives pytest's output."""
    (folder / "test_inner.py").write_text(source)
    options = ["-q", "-p", "no:cacheprovider", "-p", "conftest", "-c", "/dev/null", "--rootdir", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **(env or {})}
    command = [sys.executable, "-m", "pytest", *options, "-rA", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=60)
    return done.stdout


def test_a_test_that_leaves_something_open_fails(tmp_path: Path) -> None:
    output = pytest_in(tmp_path, LEAKY)
    for left in ("a ZeroMQ context", "thread Thread-1", "thread streamseg-x", "sleep 9"):
        assert re.search(f"the test left open: .*{left}", output)
    assert "4 passed, 4 errors" in output


def test_a_test_that_leaves_nothing_passes(tmp_path: Path) -> None:
    source = "import zmq\ndef test_it():\n    with zmq.Context() as c, c.socket(zmq.PUB): pass"
    assert "1 passed" in pytest_in(tmp_path, source)


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("apt", "STREAMSEG_REQUIRE asks for apt")])
def test_a_missing_package_skips_or_fails_as_asked(required: str, outcome: str, tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.apt('ffmpeg')\ndef test_it(): pass"
    output = pytest_in(tmp_path, source, {"PATH": "/nonexistent", "STREAMSEG_REQUIRE": required})
    assert outcome in output
    assert "no ffmpeg" in output


def test_an_unknown_package_name_is_an_error_with_the_choices(tmp_path: Path) -> None:
    output = pytest_in(tmp_path, "import pytest\n@pytest.mark.apt('nodejs')\ndef test_it(): pass")
    assert "apt('nodejs') is not known; there are ffmpeg, " in output


@pytest.mark.parametrize("kind", ["h264", "h265", "mjpeg", "gaps", "resized"])
def test_clips_hold_the_pictures_they_were_asked_for(kind: str, clip: Clips) -> None:
    with av.open(clip(kind)) as container:
        numbers = [number_of(frame) for frame in container.decode(video=0)]
    assert numbers == [n for n in range(30) if kind != "gaps" or n not in range(10, 20)]


@pytest.mark.apt("gst-rtsp-server")
class TestRtspServer:
    @pytest.mark.parametrize("codec", ["h264", "h265"])
    def test_serves_every_picture_once(self, codec: str, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip(codec, frames=30), once=True)
        with av.open(server.url(), options={"rtsp_transport": "tcp"}, timeout=5) as container:
            assert [number_of(frame) for frame in container.decode(video=0)] == list(range(30))

    def test_serves_over_udp(self, clip: Clips, rtsp_server: StartServer) -> None:
        # Looped: at its end, UDP may lose the last pictures to the farewell that overtakes them.
        server = rtsp_server(clip("h264", frames=30))
        with av.open(server.url(), options={"rtsp_transport": "udp"}, timeout=5) as container:
            frames = container.decode(video=0)
            assert [number_of(next(frames)) for _ in range(40)] == [*range(30), *range(10)]

    def test_loops_until_it_is_killed_and_returns_on_the_same_port(self, clip: Clips, rtsp_server: StartServer) -> None:
        server = rtsp_server(clip("h264", frames=10))
        url = server.url()
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=5) as container:
            frames = container.decode(video=0)
            for _ in range(25):
                next(frames)
            server.kill()
            assert len(list(frames)) < 50
        with pytest.raises(av.error.ConnectionRefusedError):
            av.open(url, timeout=5)
        assert server.restart().url() == url
        av.open(url, timeout=5).close()

    @pytest.mark.parametrize("method", ["basic", "digest"])
    def test_asks_for_the_password(self, method: str, rtsp_server: StartServer) -> None:
        server = rtsp_server(user="bob", password="s3cret", method=method)
        av.open(server.url(), timeout=5).close()
        for url in (server.url(password="wrong"), server.url(user="eve")):
            with pytest.raises(av.error.HTTPUnauthorizedError):
                av.open(url, timeout=5)
        with pytest.raises(av.error.HTTPNotFoundError):
            av.open(server.url("/nope"), timeout=5)


def test_the_command_line_runs_as_a_process(streamseg_cli: StreamsegCli) -> None:
    running = streamseg_cli.start("--help")
    assert running.wait_for_line(r"(\w+) +Run the daemon")[1] == "run"
    assert running.wait().code == 0
    with pytest.raises(AssertionError, match="ended with 0 before a line matched"):
        running.wait_for_line("no such line")
