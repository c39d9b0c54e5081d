"""`streamseg check` and `streamseg subscribe`, as processes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from clips import Clips
from daemon import ANY_PORT, STOP_SECONDS, endpoint_of
from processes import Running, StreamsegCli
from publishing import Open, publisher_fixture  # noqa: F401
from reading import until
from results import result

import streamseg

INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED"]:
            exec("os.kill(os.getpid(), signal.SIGINT)")  # as dataclasses are made

sys.meta_path.insert(0, Interrupt())
"""
"""Ctrl-C when a module is about to be imported."""


@pytest.mark.parametrize("module", ["streamseg.cli", "typer.main", "streamseg.service"])
def test_ctrl_c_before_the_command_runs_ends_it_with_130(
    module: str, streamseg_cli: StreamsegCli, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": paths, "INTERRUPTED": module}
    done = streamseg_cli("run", "synthetic://street", env=env)
    assert (done.code, done.stdout, done.stderr) == (130, "", "")


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


def test_ctrl_c_ends_a_check_of_cameras_that_do_not_answer(
    streamseg_cli: StreamsegCli, tiny_engine: Path, tmp_path: Path
) -> None:
    cameras = tmp_path / "cameras.yaml"
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}"
        streams = [f"{{id: c{number}, source: {url}/{number}}}" for number in range(80)]
        cameras.write_text(f"streams: [{', '.join(streams)}]\nengine: {{name: {tiny_engine}}}\n")
        checking = streamseg_cli.start("check", cameras)
        process = psutil.Process(checking.pid)
        until(lambda: len(process.net_connections()) == 64, "as many connections as are made at once")
        checking.send(signal.SIGINT)
    assert checking.wait().code == 130


SAVED = (("frame", "jpg"), ("frame", "json"), ("labels", "png"), ("labels", "json"))


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
    names = sorted(re.sub(r"-\d+", "-N", path.name) for path in folder.iterdir())
    assert names == sorted(2 * [f"{name}-cam-N-N.{end}" for name, end in SAVED])
    news = ("--kind", "heartbeat", "--count", 2, "--timeout", 20, "--save", folder / "news")
    assert streamseg_cli("subscribe", endpoint, *news).code == 0
    assert len(list((folder / "news").glob("heartbeat-*.json"))) == 2
    quiet = streamseg_cli("subscribe", endpoint, "--stream", "other", "--timeout", 0.5)
    assert (quiet.code, quiet.stdout) == (1, "")
    assert re.fullmatch(r"streamseg: error: .* is alive, but sent nothing on .*\n", quiet.stderr)


def test_subscribe_tells_that_nothing_runs_there(streamseg_cli: StreamsegCli, free_port: int) -> None:
    done = streamseg_cli("subscribe", f"tcp://127.0.0.1:{free_port}", "--timeout", 0.5)
    assert done.code == 1
    assert re.fullmatch(
        r"streamseg: error: nothing from .* is it running\? \(Where .*: are the keys right\?\)\n", done.stderr
    )


def test_ctrl_c_ends_subscribe_without_a_word(run: Callable[..., Running], streamseg_cli: StreamsegCli) -> None:
    endpoint = endpoint_of(run("synthetic://street?size=320x180&fps=20"))
    subscriber = streamseg_cli.start("subscribe", endpoint, "--kind", "labels")
    subscriber.wait_for_line("labels/")
    done = subscriber.stop(signal.SIGINT, STOP_SECONDS)
    assert (done.code, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_is_no_failure(publisher: Open) -> None:
    made, endpoint = publisher()
    made.publish(result(1))
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "streamseg", "subscribe", endpoint, "--kind", "labels", "--every"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True) as subscriber:
        os.close(theirs)
        assert os.read(ours, 1000).startswith(b"labels/cam1/")
        os.close(ours)
        made.publish(result(2))
        assert subscriber.communicate(timeout=30)[1] == ""
    assert subscriber.returncode == 0


def test_a_full_disk_is_told_with_the_file_that_had_no_room(publisher: Open, tmp_path: Path) -> None:
    made, endpoint = publisher()
    made.publish(result(1))
    save = [sys.executable, "-m", "streamseg", "subscribe", endpoint, "--kind", "frame", "--save", str(tmp_path)]
    no_room = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    done = subprocess.run([*no_room, *save, "--timeout", "20"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(rf"streamseg: error: {tmp_path}/frame-cam1-\d+-00000001.json: File too large\n", done.stderr)


def test_what_was_saved_outlives_the_daemon(publisher: Open, streamseg_cli: StreamsegCli, tmp_path: Path) -> None:
    """One that starts again numbers its frames from 0, in another epoch."""
    for epoch in (1000, 2000):
        made, endpoint = publisher()
        made.publish(result(0, epoch=epoch))
        options = ("--kind", "labels", "--count", 1, "--timeout", 20, "--save", tmp_path / "saved")
        assert streamseg_cli("subscribe", endpoint, *options).code == 0
    assert len(list((tmp_path / "saved").glob("*.png"))) == 2


def test_on_a_terminal_a_table_follows_the_streams_and_the_log_goes_above_it(tiny_engine: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamseg", "run", "synthetic://street?size=320x180&frames=30&fps=20"]
    command += ["--engine", str(tiny_engine), "--bind", ANY_PORT]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = "".join(iter(lambda: read(ours), ""))
    os.close(ours)
    assert process.returncode == 0, shown
    assert re.search(r"street +running +\d+\.\d +\d+ .*%", shown)
    erased = r"\x1b\[2K"  # the table's lines, before the log's line takes their place
    assert re.search(erased + r"\d\d:\d\d:\d\d I street: ended \(end-of-file\)\r\n", shown)
    assert re.search(r"street: \d+ frames in, \d+ published", shown.splitlines()[-1])


def read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # how a terminal's end is told
        return ""


def test_the_version_is_told(streamseg_cli: StreamsegCli) -> None:
    done = streamseg_cli("--version")
    assert (done.code, done.stdout.strip()) == (0, streamseg.__version__)
