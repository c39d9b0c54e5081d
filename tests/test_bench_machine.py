"""What a benchmark tells of its machine. `nvidia-smi` is a script here, which prints lines of the documented format of
`--format=csv,noheader,nounits`, with `[N/A]` and its like where a GPU does not tell."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from streamseg.bench import machine

H200 = "0, NVIDIA H200, 580.95.05, 1523, 143771, 87, 61, 512.34, 700.00, 1980, 3201, 0x0000000000000000"
HOT = "0, NVIDIA H200, 580.95.05, 90211, 143771, 99, 88, 699.80, 700.00, 1290, 3201, 0x0000000000000064"
SILENT = (
    "1, NVIDIA GeForce GT 1030, 470.256.02, 312, 2000, [N/A], 44, [Not Supported], [Not Supported], "
    "1468, [Unknown Error], [N/A]"
)
IDLE = "1, NVIDIA A10, 535.183.01, 4, 23028, 0, 31, 8.55, 150.00, 210, 405, 0x0000000000000001"


def test_a_gpu_tells_its_state() -> None:
    (gpu,) = machine.parsed(H200 + "\n")
    assert (gpu.index, gpu.name, gpu.driver) == (0, "NVIDIA H200", "580.95.05")
    assert (gpu.memory_used_mb, gpu.memory_total_mb) == (1523, 143771)
    assert (gpu.busy_percent, gpu.celsius) == (87, 61)
    assert (gpu.power_w, gpu.power_limit_w, gpu.sm_mhz, gpu.memory_mhz) == (512.34, 700, 1980, 3201)
    assert (gpu.held_back, gpu.decoder_percent) == ((), None)
    (decoding,) = machine.parsed(f"{H200}, 43\n")
    assert (decoding.held_back, decoding.decoder_percent) == ((), 43)


def test_why_it_is_held_back_is_told_and_idling_is_no_reason() -> None:
    hot, idle = machine.parsed(f"{HOT}\n{IDLE}\n")
    assert hot.held_back == ("power cap", "too hot (software)", "too hot (hardware)")
    assert idle.held_back == ()


def test_what_a_gpu_does_not_tell_is_none() -> None:
    (gpu,) = machine.parsed(SILENT)
    assert (gpu.busy_percent, gpu.power_w, gpu.power_limit_w, gpu.memory_mhz) == (None, None, None, None)
    assert (gpu.memory_used_mb, gpu.sm_mhz, gpu.held_back) == (312, 1468, ())


@pytest.mark.parametrize("output", ["", "\n", "No devices were found\n", "NVIDIA-SMI has failed because, well, it has"])
def test_what_is_no_gpu_is_passed_over(output: str) -> None:
    assert machine.parsed(output) == []


def test_units_that_are_printed_all_the_same_are_no_fault() -> None:
    (gpu,) = machine.parsed(H200.replace("512.34", "512.34 W").replace("1980", "1980 MHz"))
    assert (gpu.power_w, gpu.sm_mhz) == (512.34, 1980)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path that holds an `nvidia-smi` that does as the file `script` beside it says."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def installed(folder: Path, script: str) -> None:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_the_gpus_of_this_machine_are_asked_for(smi: Path) -> None:
    installed(smi, f"echo '{H200}'; echo '{IDLE}'")
    told = machine.facts()
    assert [gpu["name"] for gpu in told["gpus"]] == ["NVIDIA H200", "NVIDIA A10"]
    assert {"python", "openvino"} <= set(told["versions"])
    text = machine.text(told)
    for words in (
        "NVIDIA H200, driver 580.95.05: 512.34 of 700.0 W, 1980.0 / 3201.0 MHz, 61.0 °C, not held back",
        "cores",
    ):
        assert words in text


@pytest.mark.parametrize("unknown", ["utilization.decoder", "clocks_event_reasons.active"])
def test_an_older_driver_is_asked_for_what_it_knows(unknown: str, smi: Path) -> None:
    refused = f"echo 'Field \"{unknown}\" is not a valid field to query.'; exit 2"
    installed(smi, f"case \"$*\" in *{unknown}*) {refused};; esac\necho '{SILENT}'")
    assert [gpu.driver for gpu in machine.gpus()] == ["470.256.02"]


@pytest.mark.parametrize("script", ["echo 'No devices were found'; exit 6", "echo 'No devices were found'", "exit 9"])
def test_without_a_gpu_there_is_none(smi: Path, script: str) -> None:
    installed(smi, script)
    assert machine.gpus() == []
    with machine.watching() as seen:
        pass
    assert seen.report() == {}


def test_without_nvidia_smi_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    with machine.watching() as seen:
        pass
    assert seen.report() == {}


def test_a_run_is_watched_for_heat_power_and_memory(smi: Path) -> None:
    loop = f"case \"$*\" in *loop-ms*) while :; do echo '{H200}'; echo '{HOT}'; echo '{IDLE}'; sleep 0.05; done;; esac"
    installed(smi, loop)
    with machine.watching() as seen:
        deadline = time.monotonic() + 10
        while not seen.report().get("held_back"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    report = seen.report()
    assert (report["memory_used_mb"], report["power_w"], report["celsius"]) == (90211 + 4, 699.8, 88)
    assert report["least_sm_mhz"] == 1290  # of those that work: the idle one's 210 say nothing
    assert report["held_back"] == ["power cap", "too hot (hardware)", "too hot (software)"]
    assert 80 < report["busy_percent"] < 99
