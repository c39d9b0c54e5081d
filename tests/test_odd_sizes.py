"""An engine that does not take every size of picture: what that does to the camera that has it, and to the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from daemon import ANY_PORT
from onnx import helper, numpy_helper
from processes import StreamsegCli

from streamseg.engine import bundle, program
from streamseg.engine.program import ProgramSpec


@pytest.fixture
def tall_engine(tmp_path: Path) -> Path:
    """The tiny engine with a pool 64 pixels high in it, which cannot be compiled for pictures less high."""
    network = tiny_engine.network()
    network.graph.node[-1].output[0] = "near"
    network.graph.node.extend(
        [
            helper.make_node("MaxPool", ["near"], ["pooled64"], kernel_shape=[64 // tiny_engine.STRIDE, 1]),
            helper.make_node("GlobalAveragePool", ["pooled64"], ["mean"]),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["near", "nothing"], ["logits"]),
        ]
    )
    network.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "zero"))
    tiny = tiny_engine.write(tmp_path, "tall")
    spec = ProgramSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return bundle.write(tiny.path, tiny.manifest, program.build(network, spec)).path


def test_a_camera_of_a_size_that_the_engine_cannot_take_ends_no_other(
    streamseg_cli: StreamsegCli, tall_engine: Path, tmp_path: Path
) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        "streams:\n"
        "  - {id: flat, source: 'synthetic://street?size=320x64&frames=5&pace=max'}\n"
        "  - {id: tiles, source: 'synthetic://street?size=320x96&frames=5&pace=max', tiling: {columns: 2, rows: 2}}\n"
        "  - {id: good, source: 'synthetic://street?size=320x192&frames=5&pace=max'}\n"
        f"engine: {{name: {tall_engine}}}\n"
        f"publish: {{bind: '{ANY_PORT}'}}\n"
    )
    checked = json.loads(streamseg_cli("check", cameras, "--json").stdout)["streams"]
    assert [(s["stream"], s["reason"]) for s in checked] == [
        ("flat", "engine"),
        ("tiles", "engine"),
        ("good", "ok"),
    ]
    assert "cannot analyse pictures at 160x32" in checked[0]["detail"]
    done = streamseg_cli("run", cameras, "--json")
    assert done.code == 0, done
    assert done.stderr.count("cannot analyse pictures at 160x32") == 1
    streams = json.loads(done.stdout)["streams"]
    assert (streams["flat"]["published"], streams["flat"]["dropped"]) == (0, {"bad-frame": 5})
    assert (streams["tiles"]["published"], streams["tiles"]["dropped"]) == (0, {"bad-frame": 5})
    assert streams["good"]["published"] == 5
