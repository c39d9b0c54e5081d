"""What an operator copies from deploy/ works as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.core
import typer.main
import zmq.auth
from publishing import Open, publisher_fixture  # noqa: F401

from streamseg.cli import app
from streamseg.config import CurveConfig, read, validated

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def test_the_example_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", "p@ss/word")
    monkeypatch.setenv("YARD_PASSWORD", "x")
    config = validated(read(DEPLOY / "cameras.example.yaml"))
    assert [stream.name for stream in config.streams] == ["gate", "yard", "demo"]


def test_the_image_finds_its_daemon_healthy_with_curve_and_without(publisher: Open, tmp_path: Path) -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text().replace("\\\n", "")
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (.*)$", dockerfile, re.MULTILINE)
    command = tmp_path / "streamseg"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m streamseg "$@"\n')
    command.chmod(0o755)
    for name in ("daemon", "check"):
        zmq.auth.create_certificates(tmp_path, name)
    public = {name: zmq.auth.load_certificate(tmp_path / f"{name}.key")[0].decode() for name in ("daemon", "check")}
    curve = CurveConfig(secret_key_file=tmp_path / "daemon.key_secret", authorised_keys=(public["check"],))
    given = {
        "STREAMSEG_HEALTH_SERVER_KEY": public["daemon"],
        "STREAMSEG_HEALTH_KEY_FILE": str(tmp_path / "check.key_secret"),
    }
    for config, keys, code in (({}, {}, 0), ({"curve": curve}, given, 0), ({"curve": curve}, {}, 1)):
        endpoint = publisher(**config)[1]
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STREAMSEG_HEALTH_ENDPOINT": endpoint} | keys
        done = subprocess.run(["sh", "-c", check], env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (code, ""), done


def commands() -> list[str]:
    text = (DEPLOY / "BENCHMARKS.md").read_text()
    return [line.strip() for line in text.splitlines() if line.startswith("    streamseg ")]


def test_there_are_commands_to_measure_with() -> None:
    named = {" ".join(command.split()[1:3]) for command in commands()}
    assert named == {f"bench {name}" for name in ("clip", "engine", "network", "pipeline", "stages", "streams")}


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_benchmarks_is_one(command: str) -> None:
    group = typer.main.get_command(app)
    words = command.split()[1:]
    while isinstance(group, typer.core.TyperGroup):
        name = words.pop(0)
        group = group.commands[name]
    with group.make_context(name, words):  # a word that it does not know is an error
        pass
