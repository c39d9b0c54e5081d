"""Programs in batches, as a GPU runs them, on the CPU device: the same class, buckets, pool of states, and answers."""

from __future__ import annotations

import gc
import inspect
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_engine
import torch
from tiny_engine import COLOURS, NAMES, STRIDE

from streamseg.engine import program, torch_intake
from streamseg.engine.backends import CompileOptions
from streamseg.engine.bundle import find
from streamseg.engine.program import ProgramSpec
from streamseg.engine.torch_backend import FIRST_STREAMS, BatchedProgram, sizes_up_to, torch_program
from streamseg.engine.torch_device import HANDS, CpuDevice
from streamseg.synthetic import Street
from streamseg.types import U8, Precision

WIDTH, HEIGHT = 160, 96
STREET = Street(3, 480, 272, 25.0)


@cache
def street(index: int) -> U8:
    return STREET.picture(index)


def street_program(batch: int, precision: Precision = "fp32") -> BatchedProgram:
    bundle = find("street-edge")
    model = program.build(
        program.network_of(bundle.program), ProgramSpec(bundle.manifest.input.mean, bundle.manifest.input.std)
    )
    return torch_program(model, CompileOptions(480, 272, precision, 1, batch), CpuDevice())


def tiny_program(batch: int, mode: program.SmoothingMode = "average") -> BatchedProgram:
    """Forgets within 0.5 s; see `tiny_engine`."""
    spec = ProgramSpec((0, 0, 0), (1, 1, 1), mode, 1.0)
    model = program.build(tiny_engine.network(), spec)
    return torch_program(model, CompileOptions(WIDTH, HEIGHT, "fp32", 1, batch), CpuDevice())


def plain(name: str) -> U8:
    return np.full((HEIGHT, WIDTH, 3), COLOURS[name], np.uint8)


def names_of(makers: list) -> list[str]:  # type: ignore[type-arg]
    return [NAMES[label] for (label,) in (np.unique(make()) for make in makers)]


def test_buckets_double_up_to_the_largest_batch() -> None:
    assert sizes_up_to(1) == [1]
    assert sizes_up_to(8) == [1, 2, 4, 8]
    assert sizes_up_to(12) == [1, 2, 4, 8, 12]
    assert sizes_up_to(32) == [1, 2, 4, 8, 16, 32]


def test_a_batch_gives_what_single_runs_give() -> None:
    """Three rounds of streams that come in every number, so that every bucket is filled and padded; up to ties."""
    batched, single = street_program(4), street_program(1)
    mine, alone = ([p.new_state() for _ in range(7)] for p in (batched, single))
    for turn, count in enumerate((1, 3, 4, 7)):
        pictures = [street(4 * turn + 20 * stream) for stream in range(count)]
        together = batched.run(pictures, mine[:count], [0.2] * count)
        for make, picture, state in zip(together, pictures, alone, strict=False):
            (one,) = single.run([picture], [state], [0.2])
            assert np.mean(make() == one()) >= 0.9999
    for state, other in zip(mine, alone, strict=True):
        held, wanted = batched.values(state), single.values(other)
        assert held is not None
        assert wanted is not None
        np.testing.assert_allclose(held, wanted, atol=2e-3)


def test_streams_change_places_in_a_batch_and_keep_their_past() -> None:
    batched = tiny_program(4)
    white, black, square = (batched.new_state() for _ in range(3))
    batched.run([plain("white"), plain("black"), plain("square")], [white, black, square], [-1.0] * 3)
    again = batched.run([plain("ground")] * 3, [square, white, black], [0.04] * 3)
    assert names_of(again) == ["square", "white", "black"], "one frame of something else does not change the answer"
    assert names_of(batched.run([plain("ground")], [black], [0.04])) == ["black"]


def test_the_rows_that_pad_a_batch_change_no_stream() -> None:
    batched = tiny_program(8)
    states = [batched.new_state() for _ in range(FIRST_STREAMS)]
    for at in range(0, FIRST_STREAMS, 8):
        batched.run([plain("white")] * 8, states[at : at + 8], [-1.0] * 8)
    before = [batched.values(state) for state in states]
    batched.run([plain("black")] * 5, states[:5], [0.1] * 5)
    for state, held in zip(states[5:], before[5:], strict=True):
        np.testing.assert_array_equal(batched.values(state), held)
    assert not np.array_equal(batched.values(states[0]), before[0])


def test_more_streams_than_the_pool_holds() -> None:
    batched = tiny_program(2)
    colours = [NAMES[i % 4] for i in range(2 * FIRST_STREAMS + 3)]
    states = []
    for colour in colours:
        states.append(batched.new_state())
        batched.run([plain(colour)], states[-1:], [-1.0])
    for colour, state in zip(colours, states, strict=True):
        assert names_of(batched.run([plain("ground")], [state], [0.01])) == [colour]


def test_the_place_of_a_stream_that_has_gone_is_given_to_another_which_starts_afresh() -> None:
    batched = tiny_program(1)
    for i in range(3 * FIRST_STREAMS):
        state = batched.new_state()
        assert batched.values(state) is None
        colour = NAMES[i % 4]
        assert names_of(batched.run([plain(colour)], [state], [0.01])) == [colour], "the past was another stream's"
        del state
        gc.collect(0)
    assert batched._pool is not None
    assert batched._pool.nowhere == FIRST_STREAMS, "the pool grew for streams that had gone"


def test_a_state_goes_from_one_program_to_another() -> None:
    old, new = street_program(2), street_program(1)
    state = old.new_state()
    for i in range(3):
        old.run([street(8 * i)], [state], [0.2])
    carried = new.new_state(old.values(state))
    (go_on,) = old.run([street(32)], [state], [0.2])
    (take_over,) = new.run([street(32)], [carried], [0.2])
    np.testing.assert_array_equal(go_on(), take_over())
    (afresh,) = new.run([street(32)], [new.new_state()], [0.2])
    assert (afresh() != take_over()).any(), "nothing was carried over"


def test_labels_are_made_when_asked_for_however_many_batches_later() -> None:
    batched = tiny_program(4, "off")
    states = [batched.new_state() for _ in range(3)]
    makers = [batched.run([plain(n) for n in names], states, [-1.0] * 3) for names in (NAMES[:3], NAMES[1:], NAMES[:3])]
    assert names_of(makers[1]) == list(NAMES[1:])
    assert names_of(makers[0]) == list(NAMES[:3])
    first = makers[0][0]()
    assert first.base is None, "it keeps the whole batch alive"
    assert first.flags.writeable


def test_scores_are_those_that_labels_come_from() -> None:
    batched = tiny_program(2)
    pictures = [plain("white"), plain("black"), plain("square")]
    scores = batched.run_scores(pictures, [batched.new_state() for _ in range(3)], [-1.0] * 3)
    assert [s.shape for s in scores] == [(len(NAMES), HEIGHT // STRIDE, WIDTH // STRIDE)] * 3
    assert [NAMES[s.argmax(0)[0, 0]] for s in scores] == ["white", "black", "square"]


def test_frames_may_be_tensors_on_the_device_already() -> None:
    batched = tiny_program(2)
    frames = [torch.from_numpy(plain("white")), torch.from_numpy(plain("square"))]
    states = [batched.new_state(), batched.new_state()]
    assert names_of(batched.run(frames, states, [-1.0] * 2)) == ["white", "square"]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_several_hands_stack_what_one_does(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [street(4 * index) for index in range(count)]
    out = np.zeros((count, *pictures[0].shape), np.uint8)
    monkeypatch.setattr(torch_intake, "LARGE_BYTES", 1)
    with ThreadPoolExecutor(HANDS) as hands:
        torch_intake.stack(pictures, out, hands)
    assert np.array_equal(out, np.stack(pictures))


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 0.999), ("bf16", 0.98)])
def test_half_precision_changes_few_labels(precision: Precision, bound: float) -> None:
    exact, half = street_program(2), street_program(2, precision)
    states = [[p.new_state(), p.new_state()] for p in (exact, half)]
    for i in range(2):
        pictures = [street(8 * i), street(8 * i + 40)]
        a, b = (p.run(pictures, s, [0.2] * 2) for p, s in zip((exact, half), states, strict=True))
        assert np.mean([x() == y() for x, y in zip(a, b, strict=True)]) >= bound


class WarningDevice(CpuDevice):
    def graph(self, function: Callable[[], None]) -> Callable[[], None]:
        warnings.warn("Plan failed with a cudnnException", stacklevel=1)
        return function


def test_what_cudnn_tried_in_vain_is_no_news() -> None:
    """Its warnings are errors here, as every one is in these tests."""
    model = program.build(tiny_engine.network(), ProgramSpec((0, 0, 0), (1, 1, 1), "off", 0.0))
    batched = torch_program(model, CompileOptions(WIDTH, HEIGHT, "fp32", 1, 1), WarningDevice())
    assert names_of(batched.run([plain("white")], [batched.new_state()], [-1.0])) == ["white"]


class CapturingDevice(CpuDevice):
    """As a CUDA graph does: does again what the function did, on the same memory, and holds nothing of it."""

    read: dict[str, weakref.ref[object]]
    """What the latest function reads."""

    def graph(self, function: Callable[[], None]) -> Callable[[], None]:
        reads = inspect.getclosurevars(function).nonlocals
        self.read = {name: weakref.ref(reads[name]) for name in ("state", "bound")}
        function()
        return lambda: None


def test_what_a_graph_reads_lives_as_long_as_the_program() -> None:
    model = program.build(tiny_engine.network(), ProgramSpec((0, 0, 0), (1, 1, 1), "average", 1.0))
    device = CapturingDevice()
    batched = torch_program(model, CompileOptions(WIDTH, HEIGHT, "fp32", 1, 1), device)
    gc.collect()
    assert all(each() is not None for each in device.read.values())
    del batched
    gc.collect()
    assert all(each() is None for each in device.read.values())


def test_a_network_of_one_picture_at_a_time_is_given_one(tmp_path: Path) -> None:
    """As exporters leave them that were not told of batches: a number where the batch's size should be."""
    network = tiny_engine.network()
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3, HEIGHT, WIDTH]), "shape"))
    network.graph.node.insert(0, onnx.helper.make_node("Reshape", ["image", "shape"], ["one"]))
    network.graph.node[1].input[0] = "one"
    model = program.build(network, ProgramSpec((0, 0, 0), (1, 1, 1), "average", 1.0, size=(WIDTH, HEIGHT)))
    batched = torch_program(model, CompileOptions(WIDTH, HEIGHT, "fp32", 1, 8), CpuDevice())
    assert batched.max_batch == 1
    states = [batched.new_state(), batched.new_state()]
    assert names_of(batched.run([plain("white"), plain("black")], states, [-1.0] * 2)) == ["white", "black"]
