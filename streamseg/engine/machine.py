"""The machine that this runs on, as far as speeds hang on it. Any thread."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu() -> str:
    """The processor's name as it gives it itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
