"""Plans on disk: built once, for one model, GPU and version; what is stale, foreign, damaged or tampered with is built
anew and never run. The layer that would call TensorRT is `fake_gpu`, which fails the test when given such a plan."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
from fake_gpu import FakeGpu
from planning import OPTIONS, PICTURES, SPEC, TINY, backend_fixture, built, gpu_fixture, plain, tiny_wish  # noqa: F401
from tiny_engine import NAMES

from streamseg.engine import program
from streamseg.engine.plans import Plans
from streamseg.engine.tensorrt_backend import TensorRtBackend, Wish


def test_a_plan_is_built_once(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    assert not backend.ready(TINY, OPTIONS)
    first, second = built(backend, tiny_wish()), built(backend, tiny_wish())
    assert first == second
    assert backend.ready(TINY, OPTIONS)
    states = [(p := backend.compile(TINY, OPTIONS)).new_state() for _ in range(3)]
    labels = p.run([plain(n) for n in NAMES[:3]], states, [-1.0] * 3)
    assert [NAMES[make()[0, 0]] for make in labels] == list(NAMES[:3])
    assert gpu.builds == 1


@pytest.mark.parametrize(
    "other",
    [
        {"tensorrt": "11.3.0.99"},
        {"gpu": "NVIDIA Imagined Max"},
        {"capability": "10.0"},
    ],
    ids=str,
)
def test_another_gpu_or_version_builds_its_own(
    other: dict[str, str], backend: TensorRtBackend, gpu: FakeGpu, tmp_path: Path
) -> None:
    built(backend, tiny_wish())
    there = FakeGpu(**other)  # type: ignore[arg-type]
    moved = TensorRtBackend(lambda: there, backend.plans)
    assert not moved.ready(TINY, OPTIONS)
    built(moved, tiny_wish())
    assert (gpu.builds, there.builds) == (1, 1)


def test_another_model_size_batch_or_precision_builds_its_own(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    digests = [
        built(backend, tiny_wish()),
        built(backend, tiny_wish(max_batch=2)),
        built(backend, tiny_wish(precision="fp32")),
    ]
    stronger = program.build(tiny_engine.network(), replace(SPEC, strength=0.5))
    digests.append(built(backend, Wish(stronger, OPTIONS, pictures=PICTURES)))
    wider = replace(OPTIONS, width=192)
    digests.append(built(backend, Wish(TINY, wider, pictures=[np.zeros((96, 192, 3), np.uint8)])))
    assert len(set(digests)) == len(digests) == gpu.builds


Spoil = Callable[[Path, Path], object]
SPOILS: dict[str, Spoil] = {
    "a byte of the plan": lambda plan, note: plan.write_bytes(plan.read_bytes()[:-1] + b"!"),
    "the plan cut short": lambda plan, note: plan.write_bytes(plan.read_bytes()[:-100]),
    "the plan empty": lambda plan, note: plan.write_bytes(b""),
    "no plan": lambda plan, note: plan.unlink(),
    "the note cut short": lambda plan, note: note.write_text(note.read_text()[:-20]),
    "the note of something else": lambda plan, note: note.write_text(note.read_text().replace("Imagined", "Other")),
    "the note not an object": lambda plan, note: note.write_text("[1]"),
    "the note without a digest": lambda plan, note: note.write_text(
        json.dumps({k: v for k, v in json.loads(note.read_text()).items() if k != "sha256"})
    ),
    "a plan that others may write to": lambda plan, note: plan.chmod(0o666),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_is_not_as_it_was_written_is_built_anew_and_never_run(
    what: str, backend: TensorRtBackend, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    digest = built(backend, tiny_wish())
    loaded = gpu.loaded
    plan, note = (backend.plans.folder / f"{digest}.{kind}" for kind in ("plan", "json"))
    SPOILS[what](plan, note)
    assert not backend.ready(TINY, OPTIONS)
    assert gpu.loaded == loaded, "it was deserialised"
    assert f"the plan {plan} is not used but built anew" in caplog.text
    built(backend, tiny_wish())
    assert gpu.builds == 2
    assert backend.ready(TINY, OPTIONS)


def test_a_plan_under_another_s_name_is_not_run(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    """As a cache that is copied from another machine, or by an attacker, would have it."""
    mine, other = built(backend, tiny_wish()), built(backend, tiny_wish(max_batch=2))
    for kind in ("plan", "json"):
        shutil.copy(backend.plans.folder / f"{other}.{kind}", backend.plans.folder / f"{mine}.{kind}")
    assert not backend.ready(TINY, OPTIONS)
    built(backend, tiny_wish())
    assert gpu.builds == 3


def test_plans_are_for_their_user_alone(backend: TensorRtBackend) -> None:
    built(backend, tiny_wish())
    modes = {file.stat().st_mode & 0o077 for file in (backend.plans.folder, *backend.plans.folder.iterdir())}
    assert modes == {0}


def test_a_cache_that_cannot_be_written_to_costs_time_only(gpu: FakeGpu, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("where the folder should be")
    backend = TensorRtBackend(lambda: gpu, Plans(file / "plans"))
    assert backend.compile(TINY, OPTIONS).max_batch == 4
    assert not backend.ready(TINY, OPTIONS)


def test_what_was_measured_of_kernels_is_given_to_the_next_build(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    built(backend, tiny_wish())
    built(backend, tiny_wish(max_batch=2))
    assert gpu.timings == [b"", b"timing of NVIDIA Imagined"]


def test_two_that_want_the_same_plan_build_it_once(backend: TensorRtBackend, gpu: FakeGpu) -> None:
    gpu.pause = threading.Event()
    second = TensorRtBackend(lambda: gpu, Plans(backend.plans.folder))
    threads = [threading.Thread(target=built, args=(b, tiny_wish())) for b in (backend, second)]
    for thread in threads:
        thread.start()
    assert gpu.building.wait(20)
    gpu.pause.set()
    for thread in threads:
        thread.join(30)
    assert gpu.builds == 1
