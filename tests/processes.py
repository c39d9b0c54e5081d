"""The command line as a user runs it: `python -m streamseg ...` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """How a command ended. `code` is negative for a signal."""

    code: int
    stdout: str
    stderr: str


class Running:
    """A command under way. Its output goes to files, so that nothing blocks when nobody reads."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True)
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    @property
    def output(self) -> str:
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def wait_for_line(self, pattern: str, timeout: float = 20) -> re.Match[str]:
        """The first whole line, on stdout or stderr, in which `pattern` is found; fails when the command ends or
        `timeout` seconds pass without one."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.process.poll()  # before reading, so that nothing written last is missed
            for text in (self.stdout, self.stderr):
                lines = text.splitlines(keepends=True)
                for line in lines if ended is not None else [line for line in lines if line.endswith("\n")]:
                    if match := re.search(pattern, line.rstrip("\n")):
                        return match
            if ended is not None:
                raise AssertionError(f"ended with {ended} before a line matched {pattern!r}\n{self.output}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no line matched {pattern!r} in {timeout} s\n{self.output}")
            time.sleep(0.02)

    def wait(self, timeout: float = 30) -> Finished:
        """Waits for the end; past `timeout` seconds that is a failure that shows the output so far."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.output}") from None
        return Finished(code, self.stdout, self.stderr)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGINT, timeout: float = 10) -> Finished:
        """Asks it to end, as Ctrl-C does, and waits."""
        self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """Ends it and whatever it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class StreamsegCli:
    """`cli("check", "cameras.yaml")` runs a command to its end; `cli.start("run", url)` leaves it running."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Running] = []

    def __call__(self, *arguments: object, timeout: float = 60, env: dict[str, str] | None = None) -> Finished:
        return self.start(*arguments, env=env).wait(timeout)

    def start(self, *arguments: object, env: dict[str, str] | None = None) -> Running:
        command = [sys.executable, "-m", "streamseg", *map(str, arguments)]
        running = Running(command, self._folder / str(len(self._started)), env)
        self._started.append(running)
        return running

    def kill_all(self) -> None:
        for running in self._started:
            running.kill()
