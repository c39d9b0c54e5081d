"""What an operator copies from deploy/ works as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.core
import typer.main

from streamseg.cli import app
from streamseg.config import read, validated

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def test_the_example_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", "p@ss/word")
    monkeypatch.setenv("YARD_PASSWORD", "x")
    config = validated(read(DEPLOY / "cameras.example.yaml"))
    assert [stream.name for stream in config.streams] == ["gate", "yard", "demo"]


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
