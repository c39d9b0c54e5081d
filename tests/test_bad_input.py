"""Whatever is wrong with what a user gives: one line that says what to do, the right exit code, no traceback, no hang,
and no password."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
import tiny_engine
from clips import Clips
from processes import Finished, StreamsegCli
from rtsp_server import RtspServer

StartServer = Callable[..., RtspServer]
SECRET = "s3cret-Pa55"
NORMAL = re.compile(r"\d\d:\d\d:\d\d [ID] .*|\S+: [1-9]\d* frames in, .*")


@pytest.fixture
def fails(streamseg_cli: StreamsegCli) -> Callable[..., None]:
    """`fails(code, said, command, ...)` runs it and looks at how it ends; `said` are patterns for its one line."""

    def check(code: int, said: tuple[str, ...], *arguments: object) -> None:
        done = streamseg_cli(*arguments, timeout=30)
        line = the_line(done)
        assert done.code == code, done
        assert done.stdout == ""
        for pattern in said:
            assert re.search(pattern, line), line

    return check


def the_line(done: Finished) -> str:
    """The one line that tells the fault; beside it there may only be what a normal run says."""
    told = [line for line in done.stderr.splitlines() if not NORMAL.fullmatch(line)]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("streamseg: error: ")
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout
    return told[0]


@pytest.fixture
def engine(tiny_engine: Path) -> tuple[object, ...]:
    return ("--engine", tiny_engine, "--bind", "tcp://127.0.0.1:*")


# Sources: what can be seen without opening is a usage error, the rest a failure.


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.mp4", ("nowhere.mp4", "no such file")),
        ("/tmp", ("/tmp", "is a folder; give a video file")),
        ("", ("empty; give a file",)),
        (f"rtps://bob:{SECRET}@host/path", ("no scheme 'rtps'", "rtsp://")),
        (f"rtsp://bob:{SECRET}@/path", ("host name is missing",)),
        (f"rtsp:/bob:{SECRET}@host/path", ("no such file",)),
        (f"bob:{SECRET}@host/path", ("no such file",)),
        ("synthetic://forest", ("no scene 'forest'", "synthetic://street")),
        ("synthetic://street?fps=0", ("fps='0'", "above 0")),
        ("nowhere.yaml", ("nowhere.yaml", "No such file")),
    ],
)
def test_a_source_that_cannot_be_meant(source: str, said: tuple[str, ...], fails: Callable[..., None]) -> None:
    fails(2, said, "run", source)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("text", {}, ("not a video file",)),
        ("text", {"container": "txt"}, ("no video in it; choose",)),
        ("truncated", {}, ("damaged or cut short", "index is missing")),
        ("audio", {}, ("audio only; choose",)),
        ("empty", {}, ("empty", "0 bytes")),
        ("beginning", {}, ("damaged or cut short", "End of file")),
    ],
)
def test_a_file_that_is_no_video(
    kind: str,
    options: dict[str, str],
    said: tuple[str, ...],
    fails: Callable[..., None],
    engine: tuple[object, ...],
    clip: Clips,
) -> None:
    path = clip(kind, **options)
    fails(1, (path.name, *said), "run", path, *engine)


def test_a_lossless_run_of_no_video_waits_for_nobody(
    fails: Callable[..., None], engine: tuple[object, ...], clip: Clips
) -> None:
    fails(1, ("not a video file",), "run", clip("text"), "--wait-subscriber", *engine)


def test_a_file_cut_in_the_middle(
    fails: Callable[..., None], engine: tuple[object, ...], clip: Clips, tmp_path: Path
) -> None:
    data = clip("h264", frames=60, movflags="+faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    fails(1, (r"cut\.mp4: cut short: \d\d of 60 frames",), "run", tmp_path / "cut.mp4", *engine)


def test_a_port_where_nothing_listens(fails: Callable[..., None], engine: tuple[object, ...], free_port: int) -> None:
    fails(1, ("connection refused; is it running",), "run", f"rtsp://bob:{SECRET}@127.0.0.1:{free_port}/x", *engine)


@pytest.mark.apt("gst-rtsp-server")
def test_a_wrong_password_and_a_wrong_path(
    fails: Callable[..., None], engine: tuple[object, ...], rtsp_server: StartServer
) -> None:
    server = rtsp_server(user="bob", password="right")
    fails(1, ("user name or password refused; check",), "run", server.url(password=SECRET), *engine)
    fails(1, ("no such path", "check the path"), "run", server.url("/nope"), *engine, "--verbose")


def test_a_camera_that_is_not_there(fails: Callable[..., None], engine: tuple[object, ...]) -> None:
    fails(1, ("/dev/video9", "no such device"), "run", "/dev/video9", *engine)


# Engines


def test_an_engine_that_nobody_knows(fails: Callable[..., None], clip: Clips) -> None:
    fails(2, ("no engine named 'nope'; there are: ",), "run", clip("h264"), "--engine", "nope")


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model.onnx", lambda data: data[: len(data) // 2], (r"model\.onnx is damaged",)),
        ("model.onnx", lambda data: b"", (r"model\.onnx is damaged",)),
        ("model.onnx", lambda data: None, ("has no model.onnx",)),
        (
            "engine.yaml",
            lambda data: data.replace(b"name: tiny", b"name: [tiny\n  x: {"),
            (r"engine\.yaml is damaged",),
        ),
        ("engine.yaml", lambda data: data.replace(b"licence", b"license"), (r"engine\.yaml: licen[cs]e",)),
        ("engine.yaml", lambda data: b"", (r"engine\.yaml",)),
        ("engine.yaml", lambda data: data.replace(b"colour: [", b"colour: [-"), (r"engine\.yaml: classes\.0\.colour",)),
    ],
)
def test_a_damaged_engine(
    file: str,
    damage: Callable[[bytes], bytes | None],
    said: tuple[str, ...],
    fails: Callable[..., None],
    clip: Clips,
    tmp_path: Path,
) -> None:
    path = tiny_engine.write(tmp_path).path / file
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    fails(1, said, "check", clip("h264"), "--set", f"engine.name={path.parent}")


def test_a_model_that_is_no_engine_program(fails: Callable[..., None], clip: Clips, tmp_path: Path) -> None:
    path = tiny_engine.write(tmp_path).path
    onnx.save(tiny_engine.network(inputs="pixels"), path / "model.onnx")
    fails(1, ("not an engine program: it has no tensor named image",), "run", clip("h264"), "--engine", path)


@pytest.mark.parametrize("command", ["run", "check"])
def test_run_and_check_tell_the_same(
    command: str, fails: Callable[..., None], clip: Clips, tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "cameras.yaml").write_text("streams: [")
    fails(2, ("not valid YAML",), command, tmp_path / "cameras.yaml")
    bind = ("--set", "publish.bind=tcp://0.0.0.0:5555", "--set", f"engine.name={tiny_engine}")
    fails(2, ("publish.bind", "insecure"), command, clip("h264"), *bind)
    (tmp_path / "engine.yaml").write_text("name: [x")
    fails(1, (r"engine\.yaml is damaged",), command, clip("h264"), "--set", f"engine.name={tmp_path}")


def test_a_backend_that_there_is_not(fails: Callable[..., None], clip: Clips, tiny_engine: Path) -> None:
    wanted = ("--engine", tiny_engine, "--set", "engine.backend=tensorflow")
    fails(2, ("engine.backend: 'tensorflow'", "openvino"), "run", clip("h264"), *wanted)


# Configuration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("streams: [", ("not valid YAML",)),
        ("- a\n- b\n", ("expected keys such as `streams:`",)),
        ("", ("expected keys",)),
        ("streams: 5", ("streams: 5",)),
        ("streams: [{source: 'synthetic://street', fsp: 5}]", (r"streams\[0\]\.fsp", "did you mean fps?")),
        ("streams: [{source: 'synthetic://street', name: gate}]", (r"streams\[0\]\.name", "there are id, source, fps")),
        ("stream: []\nstreams: [{source: 'synthetic://street'}]", ("stream: ", "did you mean streams?")),
        (f"streams: [{{source: 'rtsps:/bob:{SECRET}@h/x'}}]", (r"streams\[0\]\.source",)),
        ("streams: [{source: 'rtsp://h/${file:/nowhere}'}]", (r"streams\[0\]\.source", "/nowhere cannot be read")),
        (
            "streams: [{source: 'synthetic://street'}]\npublish: {bind: 'tcp://0.0.0.0:5555'}",
            ("publish.bind", "insecure"),
        ),
        ("streams: [{source: 'synthetic://street'}]\npublish: {bind: 'tcp//x'}", ("bind",)),
        (
            "streams: [{source: 'synthetic://street'}]\n"
            "publish: {curve: {secret_key_file: /nowhere, authorised_keys: ['" + 40 * "a" + "']}}",
            ("'/nowhere' cannot be read",),
        ),
        (
            "streams: [{source: 'synthetic://street'}]\n"
            "publish: {curve: {secret_key_file: /nowhere, authorised_keys: ['" + 40 * "a" + "', '" + 40 * "ä" + "']}}",
            (r"authorised_keys\[1\] is no CURVE key",),
        ),
        (
            "streams: [{source: 'synthetic://street'}]\npublish: {curve: {secret_key_file: /nowhere}}",
            ("authorised_keys is empty",),
        ),
    ],
)
def test_a_configuration_that_is_wrong(
    text: str, said: tuple[str, ...], fails: Callable[..., None], tmp_path: Path, tiny_engine: Path
) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(text)
    fails(2, said, "check", path, "--set", f"engine.name={tiny_engine}")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("streams[0].fps", ("write path.to.key=value",)),
        ("streams[7].fps=5", (r"there is no streams\[7\]\.fps",)),
        ("streams[0].fps=fast", (r"streams\[0\]\.fps: 'fast'", "number")),
        ("publish.port=7000", ("publish.port", "no such setting")),
        ("publish.bind=tcp://0.0.0.0:5555", ("insecure",)),
        ("publish.encoding=jpeg", ("publish.encoding: 'jpeg'", "deflate")),
        ("smoothing.strength=2", ("smoothing.strength: 2", "less than or equal to 1")),
        ("engine.size=[480]", ("engine.size",)),
    ],
)
def test_a_setting_that_is_wrong(
    option: str, said: tuple[str, ...], fails: Callable[..., None], tiny_engine: Path
) -> None:
    fails(2, said, "run", "synthetic://street", "--engine", tiny_engine, "--set", option)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use(fails: Callable[..., None], tiny_engine: Path, taken_port: int) -> None:
    bind = f"tcp://127.0.0.1:{taken_port}"
    said = (f"port {taken_port} on 127.0.0.1 is in use: stop the other daemon, or choose another port with --bind",)
    fails(1, said, "run", "synthetic://street", "--engine", tiny_engine, "--bind", bind)


def test_a_second_daemon_on_the_same_port(
    fails: Callable[..., None], streamseg_cli: StreamsegCli, tiny_engine: Path, free_port: int
) -> None:
    command = ("run", "synthetic://street?size=160x96", "--engine", tiny_engine)
    command += ("--bind", f"tcp://127.0.0.1:{free_port}")
    first = streamseg_cli.start(*command)
    first.wait_for_line("running")
    fails(1, (f"port {free_port} on 127.0.0.1 is in use",), *command)
    assert first.process.poll() is None
    assert first.stop().code == 0


# The other commands


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["subscribe", "tcp://127.0.0.1"], 2, ("is no endpoint such as",)),
        (["subscribe", "tcp://127.0.0.1:1", "--kind", "video"], 2, ("'video'", "labels")),
        (["subscribe", "tcp://127.0.0.1:1", "--save", "/proc/here"], 1, ("/proc/here",)),
        (["engine", "info", "nope"], 2, ("no engine named 'nope'",)),
        (["eval", "nope", "."], 2, ("no engine named 'nope'",)),
    ],
)
def test_other_commands(arguments: list[str], code: int, said: tuple[str, ...], fails: Callable[..., None]) -> None:
    fails(code, said, *arguments)


def test_a_word_that_is_no_command_shows_the_usage(streamseg_cli: StreamsegCli) -> None:
    done = streamseg_cli("rnu")
    assert done.code == 2
    assert "No such command 'rnu'" in done.stderr
    assert "Traceback" not in done.stderr
