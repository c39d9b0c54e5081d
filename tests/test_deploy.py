"""What an operator copies from deploy/ works as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamseg.config import read, validated

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def test_the_example_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", "p@ss/word")
    monkeypatch.setenv("YARD_PASSWORD", "x")
    config = validated(read(DEPLOY / "cameras.example.yaml"))
    assert [stream.name for stream in config.streams] == ["gate", "yard", "demo"]
