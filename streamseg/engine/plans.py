"""Compiled plans on disk, each beside a note of what it is of. A plan is code: nothing of it is used before its note
says that it is the one that is wanted, and whole. Any thread, any process.

Layout: `<cache>/plans/<digest of the key>.plan` and `.json` with the key, the plan's SHA-256 and size, and what was
measured when it was built.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

log = logging.getLogger("streamseg")
FORMAT = 1
"""Of the notes, and of how plans are made: another number, and all are built anew."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan hangs on. `model` is the SHA-256 of the graph that is compiled, weights included."""

    model: str
    tensorrt: str
    gpu: str
    capability: str
    precision: str
    width: int
    height: int
    batches: tuple[int, ...]
    """The largest batch of each optimisation profile."""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Plan:
    data: bytes
    measured: dict[str, Any]
    """Such as `agreement`, the share of labels that are those of the exact program."""

    def __repr__(self) -> str:
        return f"Plan({len(self.data)} bytes, {self.measured})"


class Plans:
    """The cache. A folder that cannot be written to costs time only; one that others can write to is not trusted."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_cache_path("streamseg") / "plans"

    def __repr__(self) -> str:
        return f"Plans({self.folder})"

    def get(self, key: PlanKey) -> Plan | None:
        """The plan of exactly this key, if it is there as it was written; else None, with a line in the log if
        something is there. What was found damaged is removed."""
        note_file, plan_file = self._files(key)
        if not note_file.exists():
            return None
        try:
            note = json.loads(note_file.read_text())
            if note.get("refused"):
                return None
            data = plan_file.read_bytes()
            fault = self._fault(key, note, data, plan_file)
        except (OSError, ValueError, AttributeError) as error:
            fault = " ".join(str(error).split())
        if fault is None:
            return Plan(data, note["measured"])
        log.warning("the plan %s is not used but built anew: %s", plan_file, fault)
        for file in (note_file, plan_file):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        return None

    def refusal(self, key: PlanKey) -> str | None:
        """Why a plan of this key was built and not kept."""
        try:
            note = json.loads(self._files(key)[0].read_text())
            return str(note["refused"]) if note["key"] == _plain(key) and note.get("refused") else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def put(self, key: PlanKey, plan: Plan) -> None:
        """The plan first and its note last: half of the two is none."""
        note_file, plan_file = self._files(key)
        note = {"sha256": hashlib.sha256(plan.data).hexdigest(), "bytes": len(plan.data), "measured": plan.measured}
        self._write(plan_file, plan.data)
        self._write(note_file, json.dumps({"key": _plain(key), **note}, indent=1).encode())

    def refuse(self, key: PlanKey, why: str) -> None:
        """So that a daemon does not build at every start what it cannot use."""
        self._write(self._files(key)[0], json.dumps({"key": _plain(key), "refused": why}, indent=1).encode())

    def forget(self, key: PlanKey) -> None:
        for file in self._files(key):
            file.unlink(missing_ok=True)

    def timing(self, key: PlanKey) -> bytes:
        """What TensorRT has measured of kernels in earlier builds on such a GPU; b"" at first."""
        try:
            return self._timing_file(key).read_bytes()
        except OSError:
            return b""

    def put_timing(self, key: PlanKey, data: bytes) -> None:
        self._write(self._timing_file(key), data)

    @contextlib.contextmanager
    def building(self, key: PlanKey) -> Iterator[None]:
        """One process builds a plan; another that wants the same waits, and finds it built."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._files(key)[0].with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _fault(self, key: PlanKey, note: dict[str, Any], data: bytes, file: Path) -> str | None:
        if note.get("key") != _plain(key):
            return "it was built of something else, or for another GPU or version"
        if len(data) != note.get("bytes"):
            return f"it has {len(data)} bytes, not {note.get('bytes')}"
        if hashlib.sha256(data).hexdigest() != note.get("sha256"):
            return "its contents are not what was written (SHA-256 differs)"
        status = file.stat()
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "another user may have written to it"
        return None if isinstance(note.get("measured"), dict) else "its note is incomplete"

    def _files(self, key: PlanKey) -> tuple[Path, Path]:
        return self.folder / f"{key.digest}.json", self.folder / f"{key.digest}.plan"

    def _timing_file(self, key: PlanKey) -> Path:
        of = json.dumps([key.tensorrt, key.gpu, key.capability])
        return self.folder / f"timing-{hashlib.sha256(of.encode()).hexdigest()[:16]}.cache"

    def _write(self, file: Path, data: bytes) -> None:
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.touch(mode=0o600)
            part.write_bytes(data)
            part.replace(file)
        except OSError as error:
            log.warning("%s cannot be written (%s): the next start builds again", file, error.strerror)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _plain(key: PlanKey) -> dict[str, Any]:
    """As it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(key)))
    return plain
