"""Other languages read a live stream with nothing but the wire contract: a C and a Node subscriber."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from publishing import Open, eventually, joined, publisher_fixture  # noqa: F401
from results import result

import streamseg
from streamseg import wire

CLIENTS = Path(__file__).parent / "clients"
PERSON = "mask/person/cam1/"
STREAMS = ("cam1", "cam10")
FRAMES = 8


@pytest.fixture(scope="session")
def c_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = tmp_path_factory.mktemp("c") / "subscriber"
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libzmq", "zlib"], check=True, capture_output=True, text=True
    ).stdout.split()
    source = str(CLIENTS / "subscriber.c")
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", source, "-o", str(program), *flags], check=True)
    return [str(program)]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "subscriber.mjs"):
        shutil.copy(CLIENTS / name, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=110)
    if done.returncode:  # no network, or no prebuilt libzmq for this machine
        pytest.skip(f"npm cannot install zeromq: {done.stderr.strip()[:200]}")
    return ["node", str(folder / "subscriber.mjs")]


def agree(made: Any, endpoint: str, client: list[str]) -> None:
    """The client and our own library read the same frames; both must count the same pixels."""
    labels = np.random.default_rng(4).integers(0, 3, (FRAMES, 29, 43), np.uint8)  # 43: rows padded by 5 bits
    labels[3] = 0  # nobody: sent all the same
    command = [*client, endpoint, "mask/person/", str(FRAMES * len(STREAMS))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as theirs:
        try:
            eventually(lambda: made.wants(PERSON) or theirs.poll() is not None, "the client's subscription", 30)
            with streamseg.subscribe(endpoint, classes="person", every=True, timeout=20) as ours:
                joined(made, wire.HEARTBEAT)  # which ours asks for last
                for number in range(FRAMES):
                    for stream in STREAMS:
                        made.publish(result(number, stream, labels=labels[number]))
                mine = [next(ours) for _ in range(FRAMES * len(STREAMS))]
            out, err = theirs.communicate(timeout=20)
        finally:
            theirs.kill()
    assert (theirs.returncode, err) == (0, "")
    got = [json.loads(line) for line in out.splitlines()]
    assert got == [{"topic": m.topic, "seq": m.header.seq, "pixels": int(m.array.sum())} for m in mine]
    assert [each["pixels"] for each in got[::2]] == [int((each == 1).sum()) for each in labels]
    assert got[6]["pixels"] == 0


@pytest.mark.apt("gcc", "libzmq")
@pytest.mark.parametrize("encoding", ["deflate", "raw"])
def test_a_c_client_reads_the_same_masks(publisher: Open, c_client: list[str], encoding: str) -> None:
    agree(*publisher(STREAMS, encoding=encoding, wait_subscriber=True), c_client)


@pytest.mark.apt("node", "npm")
@pytest.mark.parametrize("encoding", ["deflate", "raw"])
def test_a_node_client_reads_the_same_masks(publisher: Open, node_client: list[str], encoding: str) -> None:
    agree(*publisher(STREAMS, encoding=encoding, wait_subscriber=True), node_client)
