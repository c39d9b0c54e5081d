"""What tests may ask for: real clips, a real RTSP server, the command line; and what none may leave behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import rtsp_server as rtsp
import tiny_engine as tiny
from bringing import Bring
from clips import Clips
from daemon import ANY_PORT
from hypothesis import settings
from processes import Finished, Running, StreamsegCli

from streamseg import cli
from streamseg.engine.machine import gpu_names

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REQUIRED = set(filter(None, os.environ.get("STREAMSEG_REQUIRE", "").split(",")))
settings.register_profile("unhurried", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("unhurried")
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after `&`, which children would inherit


@pytest.fixture
def shared_data() -> Path:
    """The folder of real clips and pictures. Tests that use it carry `@pytest.mark.shared`."""
    need("shared", "data")
    return SHARED


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """`clip("h264", frames=50, width=640)` -> Path of a small real clip; see `Clips` for the kinds and options."""
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an engine that names the nearest colour: for whoever cares for the way, not for the masks."""
    return tiny.write(tmp_path_factory.mktemp("engines")).path


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """`bring(file, "--classes", "voc")` -> the Bundle that `streamseg engine import` makes of it."""
    return Bring(tmp_path)


@pytest.fixture
def rtsp_server(clip: Clips) -> Iterator[Callable[..., rtsp.RtspServer]]:
    """`rtsp_server({"/cam1": path}, user="bob", password="s3cret")` -> a running `RtspServer`; `.url()` is its URL.
    A bare path is served as /cam1. Tests that use it carry `@pytest.mark.apt("gst-rtsp-server")`."""
    need("apt", "gst-rtsp-server")
    started: list[rtsp.RtspServer] = []

    def start(mounts: dict[str, Path] | Path | None = None, **options: Any) -> rtsp.RtspServer:
        if not isinstance(mounts, dict):
            mounts = {"/cam1": mounts or clip("h264", frames=50)}
        server = rtsp.RtspServer(mounts, **options)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def streamseg_cli(tmp_path: Path) -> Iterator[StreamsegCli]:
    """`streamseg_cli("check", path)` -> Finished(code, stdout, stderr); `streamseg_cli.start("run", url)` -> Running.
    Whatever still runs when the test ends is killed."""
    cli = StreamsegCli(tmp_path / "cli")
    yield cli
    cli.kill_all()


@pytest.fixture
def streamseg_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """`streamseg_here("eval", …)` -> Finished, as of `streamseg_cli`, but in this process: for tests of what a command
    says, which a second of imports each would make slow."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli, "_leave", lambda code: None)  # it ends the process where threads hang

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["streamseg", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Finished(int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def run(streamseg_cli: StreamsegCli, tiny_engine: Path) -> Callable[..., Running]:
    """`run(source, ...)` starts `streamseg run` with the tiny engine on a free port."""
    return lambda *arguments: streamseg_cli.start("run", "--engine", tiny_engine, "--bind", ANY_PORT, *arguments)


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What a test needs. `@pytest.mark.shared`, `@pytest.mark.gpu`, `@pytest.mark.apt("ffmpeg", "node")`.


def has_command(*names: str) -> Callable[[], str | None]:
    return lambda: next((f"no {name} on the path" for name in names if not shutil.which(name)), None)


def has_gst_rtsp_server() -> str | None:
    if not os.access(rtsp.SYSTEM_PYTHON, os.X_OK):
        return f"no {rtsp.SYSTEM_PYTHON}"
    probe = subprocess.run([rtsp.SYSTEM_PYTHON, "-c", rtsp.PROBE], capture_output=True, text=True, timeout=60)
    if probe.returncode == 0:
        return None
    return f"no GStreamer RTSP server ({(probe.stderr.strip().splitlines() or ['?'])[-1]}); apt install {rtsp.PACKAGES}"


def has_libzmq() -> str | None:
    if missing := has_command("cc", "pkg-config")():
        return missing
    found = subprocess.run(["pkg-config", "--exists", "libzmq"], check=False).returncode == 0
    return None if found else "no libzmq headers; apt install libzmq3-dev"


def has_gpu() -> str | None:
    gpu_names()  # before any test has torch make its context: FFmpeg insists on the flags that this sets
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA GPU (no nvidia-smi)"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    return None if "GPU 0" in listed.stdout else "no NVIDIA GPU (nvidia-smi lists none)"


NEEDS: dict[tuple[str, str], Callable[[], str | None]] = {
    ("apt", "ffmpeg"): has_command("ffmpeg"),
    ("apt", "gcc"): has_command("cc"),
    ("apt", "gst-rtsp-server"): has_gst_rtsp_server,
    ("apt", "libzmq"): has_libzmq,
    ("apt", "node"): has_command("node"),
    ("apt", "npm"): has_command("npm"),
    ("shared", "data"): lambda: None if SHARED.is_dir() else f"no real clips at {SHARED}",
    ("gpu", "gpu"): has_gpu,
}
"""(marker, name) -> a probe that gives what is missing, or None."""


if has_gpu():  # Triton's kernels run in its interpreter then; it looks when they are defined
    os.environ.setdefault("TRITON_INTERPRET", "1")


# Before torch is imported, here and in the commands that tests start: on networks this small a second thread mostly
# waits, turning (a training of the tests took 30 s of CPU with two on a busy machine, 3 with one).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@cache
def missing(marker: str, name: str) -> str | None:
    return NEEDS[marker, name]()


def need(marker: str, name: str) -> None:
    """Skips the test when something is missing; fails it when STREAMSEG_REQUIRE says that it must be there."""
    if reason := missing(marker, name):
        if marker in REQUIRED and marker != "gpu":
            pytest.fail(f"{reason}, and STREAMSEG_REQUIRE asks for {marker}", pytrace=False)
        pytest.skip(reason)


def wanted(marker: pytest.Mark) -> list[tuple[str, str]]:
    """The (marker, name) pairs that a mark asks for; a bare `apt` asks for every package."""
    if marker.name != "apt":
        return [pair for pair in NEEDS if pair[0] == marker.name]
    return [("apt", name) for name in marker.args] or [pair for pair in NEEDS if pair[0] == "apt"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for pair in [pair for marker in item.iter_markers("apt") for pair in wanted(marker)]:
            if pair not in NEEDS:
                known = ", ".join(name for kind, name in NEEDS if kind == "apt")
                raise pytest.UsageError(f"{item.nodeid}: apt({pair[1]!r}) is not known; there are {known}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if marker.name in ("apt", "shared", "gpu"):
            for pair in wanted(marker):
                need(*pair)


# What a test must not leave behind.


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Fails a test that leaves a ZeroMQ context, a thread or a child process; what wider fixtures opened may stay.
    Threads that end by themselves within a second are waited for."""
    before = zmq_threads(), set(threading.enumerate()), children()
    yield
    deadline = time.monotonic() + 1
    while (left := left_open(*before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        for process in children() - before[2]:
            process.kill()
        pytest.fail("the test left open: " + "; ".join(left), pytrace=False)


def left_open(zmq_before: set[int], threads: set[threading.Thread], processes: set[psutil.Process]) -> list[str]:
    left = [f"process {p.pid} {describe(p)}" for p in children() - processes]
    left += [f"thread {t.name}" for t in threading.enumerate() if t not in threads and must_end(t)]
    if zmq_threads() - zmq_before:
        left.append(f"a ZeroMQ context ({', '.join(open_zmq()) or 'its sockets are closed, term() was not called'})")
    return left


def must_end(thread: threading.Thread) -> bool:
    return not thread.daemon or thread.name.startswith("streamseg-")


def zmq_threads() -> set[int]:
    """The threads of libzmq itself: each context has some from its first socket until it is terminated."""
    found = set()
    for task in Path("/proc/self/task").glob("*/comm"):  # empty where there is no /proc
        try:
            if task.read_text().startswith("ZMQbg"):
                found.add(int(task.parent.name))
        except OSError:  # it ended while we looked
            pass
    return found


def open_zmq() -> list[str]:
    zmq = sys.modules.get("zmq")
    if zmq is None:
        return []
    # type(), as isinstance() asks objects for __class__, and some of other libraries' warn when they are touched.
    return [repr(thing) for thing in gc.get_objects() if issubclass(type(thing), zmq.Socket) and not thing.closed]


def children() -> set[psutil.Process]:
    """Our child processes, except multiprocessing's own, which live as long as we do."""
    own = psutil.Process().children(recursive=True)
    return {process for process in own if "multiprocessing" not in describe(process)}


def describe(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.status()
    except psutil.Error:
        return "gone"
