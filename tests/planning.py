"""A TensorRT backend on a GPU that is not there, and something small to build plans of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from fake_gpu import FakeGpu
from tiny_engine import COLOURS

from streamseg.engine import program
from streamseg.engine.backends import CompileOptions
from streamseg.engine.plans import Plans
from streamseg.engine.program import ProgramSpec
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish
from streamseg.types import U8


def plain(name: str) -> U8:
    return np.full((96, 160, 3), COLOURS[name], np.uint8)


SPEC = ProgramSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "average", 1.0)
OPTIONS = CompileOptions(160, 96, "fp16", 1, 4)
TINY = program.build(tiny_engine.network(), SPEC)
PICTURES = (plain("white"), plain("square"))


def tiny_wish(**changes: object) -> Wish:
    return Wish(TINY, replace(OPTIONS, **changes), pictures=PICTURES)  # type: ignore[arg-type]


@pytest.fixture(name="gpu")
def gpu_fixture() -> FakeGpu:
    return FakeGpu()


@pytest.fixture(name="backend")
def backend_fixture(gpu: FakeGpu, tmp_path: Path) -> TensorRtBackend:
    return TensorRtBackend(lambda: gpu, Plans(tmp_path / "plans"))


def built(backend: TensorRtBackend, wish: Wish, said: list[str] | None = None) -> str:
    """Has it built; the digest of its key."""
    return backend.build(wish, lambda share: True, (said if said is not None else []).append)[0].digest
