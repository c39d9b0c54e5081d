"""`tiling:`, large pictures as overlapping tiles: the whole picture's answer, no seams, a past per tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_engine
from clips import Clips
from daemon import endpoint_of, everything, report_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from processes import Running, StreamsegCli
from stills import frame
from tiny_engine import COLOURS, NAMES, STRIDE

from streamseg.config import validated
from streamseg.engine import bundle, program, tiling
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.engine.tiling import Plan, Tiling, View
from streamseg.errors import ConfigError
from streamseg.types import U8

TILE = (160, 96)
TWO_BY_TWO = Tiling(2, 2, 0.2)
BACKENDS = ("openvino", "onnxruntime", "torch")


def engine(of: Bundle, tiling: Tiling | None, **options: object) -> Engine:
    return Engine(of, **({"precision": "fp32", "views": {"*": View(None, tiling)}} | options))  # type: ignore[arg-type]


def noise(width: int, height: int, seed: int = 1) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Pools 4x4, then two 3x3 convolutions that pad with zeros: an answer depends on two cells around, and on how far
    off the picture's border is."""
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.normal(0, 1, s).astype(np.float32), n) for n, s in SHAPES.items()]
    nodes = [
        helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["pooled", "first"], ["features"], pads=[1] * 4),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["logits"], pads=[1] * 4),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(NAMES), "h", "w"])
    graph = helper.make_graph(nodes, "local", [image], [logits], weights)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(network)
    folder = tmp_path_factory.mktemp("local")
    manifest = tiny_engine.write(folder, smoothing="off").manifest
    spec = program.ProgramSpec(manifest.input.mean, manifest.input.std)
    return bundle.write(folder / "local", manifest, program.build(network, spec))


SHAPES = {"first": (8, 3, 3, 3), "second": (len(NAMES), 8, 3, 3)}


# The same answer


def plan_of(of: Engine, rgb: U8) -> Plan:
    return of.plan("cam", frame(rgb).picture)


@pytest.mark.parametrize("backend", BACKENDS)
def test_away_from_the_tiles_borders_the_whole_picture_s_answer_is_given(local: Bundle, backend: str) -> None:
    tiles = engine(local, TWO_BY_TWO, backend=backend)
    plan = tiles.plan("cam", frame(noise(1000, 600)).picture)
    rgb = noise(*plan.size)  # so that nothing is scaled
    whole = engine(local, None, backend=backend, size=plan.size)
    assert (plan.tile, plan.size) == (TILE, (288, 168))
    labels, wanted = tiles.run([frame(rgb)])[0].labels, whole.run([frame(rgb)])[0].labels
    assert labels.shape == wanted.shape == (168, 288)
    disturbed = np.zeros(labels.shape, bool)
    for across in (slice(160 - 3 * STRIDE, 160 + STRIDE), slice(128 - STRIDE, 128 + 3 * STRIDE)):
        disturbed[:, across] = True
    for down in (slice(96 - 3 * STRIDE, 96 + STRIDE), slice(72 - STRIDE, 72 + 3 * STRIDE)):
        disturbed[down] = True
    assert np.mean(labels == wanted) < 1, "this network answers differently at a border"
    assert np.mean(labels[~disturbed] == wanted[~disturbed]) >= 0.9999
    assert np.mean(~disturbed) > 0.5


def test_a_network_that_looks_at_single_cells_gives_exactly_the_whole_picture_s_answer(tmp_path: Path) -> None:
    of = tiny_engine.write(tmp_path, smoothing="off")
    for asked in (Tiling(3, 2), Tiling(1, 4, 0.5), Tiling(2, 2, 0)):
        tiles = engine(of, asked)
        rgb = noise(*tiles.plan("cam", frame(noise(900, 700)).picture).size)
        whole = engine(of, None, size=rgb.shape[1::-1])
        agreed = tiles.run([frame(rgb)])[0].labels == whole.run([frame(rgb)])[0].labels
        assert agreed.mean() >= 0.9999  # rounding decides where two colours are equally near


def test_several_streams_share_a_run(tmp_path: Path) -> None:
    of = tiny_engine.write(tmp_path, smoothing="average", strength=1.0)
    together, alone = engine(of, TWO_BY_TWO), {s: engine(of, TWO_BY_TWO) for s in ("a", "b")}
    for i in range(3):
        frames = [frame(noise(288, 168, 10 * i + n), i / 10, stream=s) for n, s in enumerate(alone)]
        for each, result in zip(frames, together.run(frames), strict=True):
            np.testing.assert_array_equal(result.labels, alone[each.stream].run([each])[0].labels)


# Geometry


SIZES = st.integers(64, 8000)
TILINGS = st.builds(
    Tiling, st.none() | st.integers(1, 8), st.none() | st.integers(1, 8), st.floats(0, 0.5, allow_nan=False)
)


def plan_with(asked: Tiling, source: tuple[int, int], side: int, multiple: int, stride: int) -> Plan:
    def fit(width: int, height: int) -> tuple[int, int]:
        return side, max(multiple, round(side * height / width / multiple) * multiple)

    return tiling.plan(View(None, asked), source, fit, multiple, lambda s: (s[0] // stride, s[1] // stride))


@settings(max_examples=200)
@given(TILINGS, st.tuples(SIZES, SIZES), st.sampled_from([(160, 4, 4), (480, 8, 8), (512, 32, 8), (480, 16, 4)]))
def test_tiles_cover_all_and_their_weights_add_up(
    asked: Tiling, source: tuple[int, int], network: tuple[int, int, int]
) -> None:
    side, multiple, stride = network
    plan = plan_with(asked, source, side, multiple, stride)
    if plan.tiles == 1:
        return
    for axis, length in ((plan.across, plan.size[0]), (plan.down, plan.size[1])):
        weights, covered = np.zeros(axis.all_cells), np.zeros(length, int)
        for tile in range(axis.count):
            weights[axis.at(tile)] += axis.weights[tile]
            pixels = axis.pixels(tile)
            covered[pixels] += 1
            assert pixels.start == axis.at(tile).start * stride
            assert pixels.start % multiple == 0
            assert pixels.stop <= length
        np.testing.assert_allclose(weights, 1, atol=1e-6)
        assert covered.min() >= 1
        assert axis.all_cells * stride == length
        if axis.count > 1 and asked.overlap <= 0.4 and axis.side >= 2 * multiple:
            assert axis.side - axis.pixels(1).start >= asked.overlap * axis.side - 1e-6


@pytest.mark.parametrize(
    ("source", "tiles"),
    [
        ((1280, 720), (1, 1)),
        ((1920, 1080), (1, 1)),
        ((2560, 1440), (1, 1)),
        ((3840, 2160), (2, 2)),
        ((4096, 2160), (2, 2)),
        ((7680, 4320), (4, 4)),
        ((2160, 3840), (1, 4)),
        ((7680, 1080), (4, 1)),
    ],
)
def test_left_to_us_a_tile_covers_about_a_full_hd_picture(source: tuple[int, int], tiles: tuple[int, int]) -> None:
    assert Tiling().counts(*source) == tiles
    assert plan_with(Tiling(), source, 480, 8, 8).tiles == tiles[0] * tiles[1]


def test_a_network_whose_output_is_no_whole_part_of_its_input_is_tiled_too() -> None:
    """DeepLab's 513 pixels to 65 cells: a tile begins half a pixel off its cells at most."""
    plan = tiling.plan(View(None, TWO_BY_TWO), (3840, 2160), lambda *_: (513, 513), 1, lambda _: (65, 65))
    assert plan.across.all_cells == 65 + plan.across.step
    assert abs(plan.across.pixels(1).start - plan.across.step * 513 / 65) <= 0.5
    assert plan.across.pixels(1).stop <= plan.size[0]
    assert [tile.shape for tile in plan.cut(noise(*plan.size))] == [(513, 513, 3)] * 4
    assert plan.labels([np.random.rand(3, 65, 65).astype(np.float32)] * 4).shape == plan.size[::-1]


# No seams


def blended(values: Sequence[float], overlap: float) -> np.ndarray:
    """The scores of a class along the picture, of two tiles that are sure of different ones."""
    plan = plan_with(Tiling(2, 1, overlap), (3840, 1080), 480, 8, 8)
    tiles = [np.full((1, plan.down.cells, plan.across.cells), value, np.float32) for value in values]
    return plan.blended(tiles)[0, 0]


def test_tiles_that_disagree_fade_into_each_other() -> None:
    scores = blended((0.2, 0.8), 0.25)
    steps = np.diff(scores)
    assert (scores[0], scores[-1]) == (np.float32(0.2), np.float32(0.8))
    assert (steps > -1e-6).all()
    assert 0 < steps.max() <= 0.6 / 14, "15 cells overlap"
    assert np.diff(blended((0.2, 0.8), 0)).max() > 0.59


def test_tiles_that_agree_leave_no_trace() -> None:
    np.testing.assert_allclose(blended((0.4, 0.4), 0.125), 0.4, atol=1e-6)


def test_a_plain_picture_and_a_ramp_show_no_seam(tmp_path: Path) -> None:
    tiles = engine(tiny_engine.write(tmp_path, smoothing="off"), Tiling(3, 3))
    plain = np.full((600, 1000, 3), COLOURS["square"], np.uint8)
    assert set(np.unique(tiles.run([frame(plain)])[0].labels)) == {NAMES.index("square")}
    ramp = np.repeat(np.tile(np.linspace(16, 235, 1000).astype(np.uint8), (600, 1))[..., None], 3, axis=2)
    labels = tiles.run([frame(ramp)])[0].labels
    changes = np.flatnonzero(np.diff(labels[0].astype(int)))
    assert (labels == labels[0]).all()
    assert labels[0, [0, -1]].tolist() == [NAMES.index("black"), NAMES.index("white")]
    assert len(changes) == 2, "black, ground, white: each begins once"


# A past per tile


def test_every_tile_has_a_past_of_its_own(tmp_path: Path) -> None:
    of = tiny_engine.write(tmp_path, smoothing="average", strength=1.0)
    tiles, size = engine(of, TWO_BY_TWO), (288, 168)
    whole, unsmoothed = engine(of, None, size=size), engine(of, TWO_BY_TWO, smoothing="off")
    past_matters = 0.0
    for i in range(5):
        rgb = np.full((size[1], size[0], 3), COLOURS["white"], np.uint8)
        rgb[:, : 60 * i] = COLOURS["black"]
        labels = tiles.run([frame(rgb, i / 25)])[0].labels
        assert np.mean(labels == whole.run([frame(rgb, i / 25)])[0].labels) >= 0.9999
        past_matters += np.mean(labels != unsmoothed.run([frame(rgb, i / 25)])[0].labels)
    assert past_matters > 0.1


def test_all_tiles_forget_when_the_stream_does(tmp_path: Path) -> None:
    of = tiny_engine.write(tmp_path, smoothing="average", strength=1.0)
    black, white = (np.full((168, 288, 3), COLOURS[name], np.uint8) for name in ("black", "white"))
    tiles = engine(of, TWO_BY_TWO)
    tiles.run([frame(black, 0.0)])
    assert set(np.unique(tiles.run([frame(white, 0.04)])[0].labels)) == {NAMES.index("black")}
    after = tiles.run([frame(white, 0.08, state_key=2)])[0].labels
    assert set(np.unique(after)) == {NAMES.index("white")}


# The daemon


def test_a_4k_clip_is_published_as_eval_computes_it(
    run: Callable[..., Running], streamseg_cli: StreamsegCli, tiny_engine: Path, clip: Clips, tmp_path: Path
) -> None:
    path, saved = clip("h264", frames=6, width=3840, height=2160), tmp_path / "labels.npz"
    evaluated = streamseg_cli("eval", tiny_engine, path, "--save-labels", saved, "--set", "streams[0].tiling=auto")
    assert evaluated.code == 0, evaluated
    running = run(path, "--wait-subscriber", "--json", "--set", "streams[0].tiling={columns: 2, rows: 2}")
    maps = [m for m in everything(endpoint_of(running), kind=["labels", "event"]) if m.header.kind == "labels"]
    assert report_of(running.wait())
    assert [m.header.frame for m in maps] == list(range(6))
    assert maps[0].array is not None
    assert maps[0].array.shape == (160, 296), "nearly twice the 88 x 160 of one tile"
    roi = maps[0].header.roi
    assert roi is not None
    assert (roi.x, roi.y, roi.width, roi.height) == (0, 0, 3840, 2160)
    np.testing.assert_array_equal(np.stack([m.array for m in maps]), np.load(saved)["labels"])  # type: ignore[arg-type]
    square = maps[0].on_source() == NAMES.index("square")
    assert square[1140:1560, 0:480].all(), "540 x 540 pixels at half height, at the left; a score for every 52"
    assert not square[:, 600:].any()


def test_what_does_not_move_is_reused_as_a_whole(run: Callable[..., Running], clip: Clips) -> None:
    path = clip("h264", frames=16, width=640, height=384)
    still = ["--set", "streams[0].tiling={columns: 2, rows: 2}", "--set", "streams[0].motion={skip: true, ignore: ALL}"]
    still[3] = still[3].replace("ALL", "[[0, 0, 1, 1]]")
    running = run(path, "--wait-subscriber", "--json", *still)
    maps = [m for m in everything(endpoint_of(running), kind=["labels", "event"]) if m.header.kind == "labels"]
    (stream,) = report_of(running.wait())["streams"].values()
    assert stream["published"] == 16  # type: ignore[index]
    assert [m.header.frame for m in maps if m.header.reused] == list(range(5, 16))
    for later in maps[5:]:
        np.testing.assert_array_equal(later.array, maps[4].array)


# What cannot be


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("4", ["streams[0].tiling: 4", "auto", "{columns: 2, rows: 2"]),
        ("many", ["streams[0].tiling: 'many'", "auto"]),
        ("{columns: 0}", ["streams[0].tiling.columns: 0", "greater than or equal to 1"]),
        ("{columns: 2, rows: 9}", ["streams[0].tiling.rows: 9", "less than or equal to 8"]),
        ("{overlap: 0.6}", ["streams[0].tiling.overlap: 0.6", "less than or equal to 0.5"]),
        ("{colums: 2}", ["streams[0].tiling.colums", "no such setting"]),
    ],
)
def test_an_impossible_tiling_is_named(given: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        validated({"streams": [{"source": "synthetic://street"}]}, [f"streams[0].tiling={given}"])
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value)


def test_auto_is_an_empty_tiling() -> None:
    street = {"streams": [{"source": "synthetic://street"}]}
    (auto,) = validated(street, ["streams[0].tiling=auto"]).streams
    (empty,) = validated(street, ["streams[0].tiling={}"]).streams
    assert auto.tiling == empty.tiling is not None
