"""The machine that this runs on, as far as speeds hang on it, and what was measured on it. Any thread."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path


def cpu() -> str:
    """The processor's name as it gives it itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@cache
def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that the driver gives us, by index. Asked of the driver itself, as importing torch to ask takes
    seconds. API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html"""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    for index in range(count.value):
        sleep_while_waiting(driver, index)
    return tuple(_name(driver, index) for index in range(count.value))


def sleep_while_waiting(driver: ctypes.CDLL, index: int) -> None:
    """Sets CU_CTX_SCHED_BLOCKING_SYNC on a GPU's primary context, which torch and FFmpeg share. FFmpeg refuses one that
    is active with other flags ("Primary context already active with incompatible flags"), as torch makes it."""
    device = ctypes.c_int(0)
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
        driver.cuDevicePrimaryCtxSetFlags_v2(device, 4)


def _name(driver: ctypes.CDLL, index: int) -> str:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(128)
    if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetName(name, len(name), device):
        return f"GPU {index}"
    return name.value.decode(errors="replace")


def kept_at(folder: str, key: object) -> Path:
    """The file of a measurement in the user's cache, named by all that it hangs on."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return user_cache_path("streamseg") / folder / f"{digest[:32]}.json"


def keep(file: Path, what: dict[str, object]) -> None:
    """A cache that cannot be written to only costs time."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(what))
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
