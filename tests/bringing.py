"""Bringing engines in, as `streamseg engine import` does: what the tests of it share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from foreign_models import picture
from typer.testing import CliRunner

from streamseg.cli import app
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.errors import StreamsegError


class Bring:
    """`bring(file, *options)` imports a file and gives its bundle, or raises what the command line would print."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.output = ""

    def __call__(self, source: Path, *options: str, name: str = "brought") -> Bundle:
        folder = self._folder / name
        arguments = ["engine", "import", str(source), "--out", str(folder), "--name", name, *options]
        if "--picture" not in options:
            still = self._folder / "still.png"
            cv2.imwrite(str(still), picture()[..., ::-1])
            arguments += ["--picture", str(still)]
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, StreamsegError):
            raise result.exception
        assert result.exit_code == 0, (result.output, result.exception)
        self.output = result.output
        return Bundle.open(folder)


def answer(bundle: Bundle, rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The engine's labels, unsmoothed, in fp32."""
    size = (rgb.shape[1], rgb.shape[0])
    program = Engine(bundle, smoothing="off", precision="fp32", size=size).program(size)
    return program.run([rgb], [program.new_state()], [-1.0])[0]()


def left_alone(folder: Path) -> None:
    """Nothing of a failed import is left, hidden or not."""
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == []
