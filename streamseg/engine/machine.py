"""The machine that this runs on, as far as speeds hang on it. Any thread."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path


def cpu() -> str:
    """The processor's name as it gives it itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@cache
def gpus() -> int:
    """How many NVIDIA GPUs the driver gives us; 0 without one. Asked of the driver itself, as importing torch for the
    question takes seconds. API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html"""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
