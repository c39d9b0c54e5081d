"""One training at a time in a work folder. The training thread's."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamseg.errors import ConfigError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes `folder` and keeps other trainings out of it, which would write over the checkpoint and the log. The kernel
    unlocks it when the process ends, however it ends. Raises ConfigError where another one is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another training is at work in {folder}; give this one its own with --work") from None
        except OSError:  # a file system without locks
            pass
        yield
