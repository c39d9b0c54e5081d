"""`roi:`, analysis of a part of the picture: what is analysed, what the wire tells of it, and where it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tiny_engine
import views
from clips import Clips
from daemon import ANY_PORT, endpoint_of, everything, report_of
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Running, StreamsegCli
from results import GreyPicture, result
from test_overlay import CLASSES, camera, halves
from tiny_engine import COLOURS, NAMES

from streamseg import wire
from streamseg.config import validated
from streamseg.encode import Encoder
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.engine.tiling import Tiling, View
from streamseg.errors import ConfigError, WireError
from streamseg.evaluation import evaluate
from streamseg.ingest.crop import Cropper
from streamseg.ingest.frames import file_frames
from streamseg.motion import MotionGate
from streamseg.overlay import annotate, full_range
from streamseg.received import Message
from streamseg.types import U8, Result, Roi

MIDDLE = (0.25, 0.25, 0.5, 0.5)
SQUARE = NAMES.index("square")


def seen(path: Path, roi: tuple[float, float, float, float] | None, tiny: Path, **options: object) -> list[Result]:
    """What the engine makes of every frame of a clip."""
    engine = Engine(Bundle.open(tiny), smoothing="off", views={"*": View(roi, **options)})  # type: ignore[arg-type]
    return [engine.run([each])[0] for each in file_frames(path)]


# What is analysed


def test_a_strip_that_is_narrower_than_the_network_sees_ends_no_daemon(streamseg_cli: StreamsegCli) -> None:
    strips = ("--set", "streams[0].roi=[0, 0.5, 1, 0.02]", "--bind", ANY_PORT, "--json")
    report = report_of(streamseg_cli("run", "synthetic://street?frames=3&pace=max", *strips))
    assert report["streams"]["street"]["published"] == 3  # type: ignore[index]


SHARES = st.floats(0, 1, allow_nan=False)


@settings(max_examples=300)
@given(st.tuples(SHARES, SHARES, SHARES, SHARES), st.integers(32, 4100), st.integers(32, 4100))
def test_the_part_lies_inside_at_even_pixels_and_is_never_empty(
    box: tuple[float, float, float, float], width: int, height: int
) -> None:
    x, y, w, h = box
    part = View((x, y, w * (1 - x), h * (1 - y))).part(width, height)
    if part is None:  # all of it
        return
    assert 0 <= part.x < part.x + part.width <= width
    assert 0 <= part.y < part.y + part.height <= height
    assert part.width >= 2 <= part.height
    assert not any(value % 2 for value in (part.x, part.y, part.width, part.height))
    assert abs(part.x - x * width) <= 3
    assert abs(part.x + part.width - (x + w * (1 - x)) * width) <= 4


@pytest.mark.parametrize("kind", ["h264", "mjpeg", "h265"])
def test_a_part_is_cut_before_it_is_scaled(kind: str, clip: Clips) -> None:
    """Cut and then scaled, whatever the decoder's format; no pixel from outside gets in."""
    picture = next(file_frames(clip(kind, frames=2))).picture
    part = Roi(60, 80, 160, 120)
    whole = picture.rgb(320, 240)
    assert np.abs(picture.rgb(160, 120, part).astype(int) - whole[80:200, 60:220]).mean() < 1.5
    small = cv2.resize(whole[80:200, 60:220], (80, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(picture.rgb(80, 60, part).astype(int) - small).mean() < 2


@pytest.mark.parametrize("matrix", range(9))
def test_a_picture_of_any_colour_matrix_is_cut(matrix: int, clip: Clips) -> None:
    with av.open(str(clip("h264", frames=2))) as file:
        picture = next(file.decode(video=0))
    picture.colorspace = matrix  # 2: unspecified, as of most cameras; 3: reserved, as of broken ones
    cut = Cropper()(picture, Roi(60, 80, 160, 120))
    assert (cut.width, cut.height, int(cut.colorspace)) == (160, 120, matrix)
    np.testing.assert_array_equal(cut.to_ndarray()[:120], picture.to_ndarray()[80:200, 60:220])


def test_what_was_scaled_ahead_is_handed_out_for_the_same_part_alone(clip: Clips) -> None:
    picture = next(file_frames(clip("h264", frames=2))).picture
    left, right = Roi(0, 0, 160, 240), Roi(160, 0, 160, 240)
    wanted = picture.rgb(64, 96, right)
    assert np.any(wanted != picture.rgb(64, 96, left))
    picture.scale_ahead(64, 96, left)
    np.testing.assert_array_equal(picture.rgb(64, 96, right), wanted)
    picture.scale_ahead(64, 96, right)
    np.testing.assert_array_equal(picture.rgb(64, 96, right), wanted)


def test_the_part_gets_all_of_the_engine_s_resolution(clip: Clips, tiny_engine: Path) -> None:
    path = clip("h264", frames=3, width=640, height=480)
    (whole, *_), (part, *_) = seen(path, None, tiny_engine), seen(path, (0, 0.5, 0.5, 0.25), tiny_engine)
    assert whole.labels.shape == (120, 160)
    assert part.labels.shape == (64, 160), "320 x 120 pixels"
    assert part.roi == Roi(0, 240, 320, 120)
    stretched = cv2.resize(whole.labels[60:90, :80], (160, 64), interpolation=cv2.INTER_NEAREST)
    assert np.mean(part.labels == stretched) > 0.95


def test_tiles_lie_within_the_part(clip: Clips, tiny_engine: Path) -> None:
    path = clip("h264", frames=3, width=640, height=480)
    tiled = seen(path, MIDDLE, tiny_engine, tiling=Tiling(2, 2))[1]
    alone = seen(path, MIDDLE, tiny_engine)[1]
    assert tiled.roi == alone.roi == Roi(160, 120, 320, 240)
    assert tiled.labels.shape > alone.labels.shape
    again = cv2.resize(tiled.labels, alone.labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.mean(again == alone.labels) > 0.95


# On the wire


def test_the_daemon_publishes_the_part_s_masks_and_says_where_they_lie(
    run: Callable[..., Running], clip: Clips, tiny_engine: Path
) -> None:
    path = clip("h264", frames=8, width=640, height=480)
    asked = "[0, 0.4, 0.5, 0.5]"
    running = run(path, "--wait-subscriber", "--json", "--smoothing", "off", "--set", f"streams[0].roi={asked}")
    got = [m for m in everything(endpoint_of(running)) if m.header.kind != "event"]
    assert report_of(running.wait())
    wanted = seen(path, (0, 0.4, 0.5, 0.5), tiny_engine)
    maps = {m.header.frame: m for m in got if m.header.kind == "labels"}
    assert sorted(maps) == list(range(8))
    for number, message in maps.items():
        assert message.header.roi == Roi(0, 192, 320, 240)
        np.testing.assert_array_equal(message.array, wanted[number].labels)
    for message in (m for m in got if m.topic.startswith("mask/square/")):
        number, header = message.header.frame, message.header
        assert number is not None
        assert message.array is not None
        assert header.roi == Roi(0, 192, 320, 240)
        assert header.pixels == message.array.sum() > 0
        on_source = message.on_source()
        assert on_source is not None
        assert on_source.shape == (480, 640)
        true = np.zeros((480, 640), bool)
        true[240:360, 4 * number : 4 * number + 120] = True
        assert (on_source & true).sum() / (on_source | true).sum() > 0.9
        assert message.source_bbox is not None
        np.testing.assert_allclose(message.source_bbox, (4 * number, 240, 120, 120), atol=8)
    drawn, plain = (
        next(m.decode().astype(int) for m in got if m.header.kind == kind and m.header.frame == 7)
        for kind in ("frame", "picture")
    )
    changed = np.abs(drawn - plain).mean(axis=2)
    assert changed.shape == (480, 640), "pictures are whole"
    assert changed[200:425, 10:310].mean() > 5
    assert changed[200:425, 340:].max() < 5
    assert changed[:180, 200:].max() < 5, "right of the legend"


def message_of(labels: U8, roi: Roi) -> Message:
    answer = replace(result(0, picture=GreyPicture(64, 48)), make_labels=lambda: labels, roi=roi)
    encoded = next(Encoder(CLASSES, encoding="raw", jpeg_quality=80).messages(answer, lambda t: t[:6] == "labels"))
    return Message(wire.parse_header(wire.dump_header(encoded.fields)), encoded.topic, encoded.payload)


def test_a_map_is_laid_over_the_source_picture_where_it_belongs() -> None:
    laid = message_of(np.array([[0, 1], [2, 0]], np.uint8), Roi(10, 20, 30, 20)).on_source()
    assert laid is not None
    wanted = np.full((48, 64), 255)
    wanted[20:30, 10:25], wanted[20:30, 25:40], wanted[30:40, 10:25], wanted[30:40, 25:40] = 0, 1, 2, 0
    np.testing.assert_array_equal(laid, wanted)


def test_a_map_finer_than_the_source_is_thinned_out() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (96, 128), np.uint8)
    np.testing.assert_array_equal(message_of(labels, Roi(0, 0, 64, 48)).on_source(), labels[1::2, 1::2])


def test_a_header_whose_part_leaves_its_picture_is_refused() -> None:
    with pytest.raises(WireError, match="64x48"):
        message_of(np.zeros((2, 2), np.uint8), Roi(40, 20, 30, 20)).on_source()


# Drawing


@pytest.mark.parametrize("full", [False, True], ids=["television range", "full range"])
@pytest.mark.parametrize("undrawn", [frozenset(), frozenset({1})], ids=["all drawn", "one not"])
def test_the_overlay_is_drawn_in_the_part_alone(full: bool, undrawn: frozenset[int]) -> None:
    planes, roi = camera(full=full), Roi(320, 260, 200, 100)
    drawn = annotate(planes, halves(1, 2), CLASSES, undrawn=undrawn, roi=roi)
    whole, plain = annotate(planes, halves(1, 2), CLASSES, undrawn=undrawn), full_range(planes)
    inside = np.zeros(planes.u.shape, bool)
    inside[130:180, 160:260] = True
    legend = np.s_[:90, :90]
    inside_or_legend = inside.copy()
    inside_or_legend[legend] = True
    for chroma, camera_s, halved in ((drawn.u, plain.u, whole.u), (drawn.v, plain.v, whole.v)):
        np.testing.assert_array_equal(chroma[~inside_or_legend], camera_s[~inside_or_legend])
        np.testing.assert_array_equal(np.unique(chroma[130:180, 160:210]), np.unique(halved[120:, :150]))
        np.testing.assert_array_equal(np.unique(chroma[130:180, 210:260]), np.unique(halved[120:, 170:]))
    np.testing.assert_array_equal(drawn.y[180:], plain.y[180:])


def test_a_part_at_the_edge_of_an_odd_picture_is_drawn_to_its_last_sample() -> None:
    planes, roi = camera(101, 77), Roi(50, 38, 51, 39)
    drawn = annotate(planes, np.ones((4, 4), np.uint8), CLASSES, roi=roi)
    assert len(np.unique(drawn.u[19:, 25:])) == 1
    assert drawn.u[-1, -1] != full_range(planes).u[-1, -1]


# Motion


def analysed(path: Path, gate: MotionGate) -> list[int]:
    numbers = []
    for each in file_frames(path, skip_still=True):
        if gate.reuse(each) is None:
            numbers.append(each.number)
            gate.keep(Result(each, lambda: np.zeros((1, 1), np.uint8), "none@0", False, Roi(0, 0, 2, 2), 0, 0))
    return numbers


def test_only_motion_in_the_part_counts(tmp_path: Path) -> None:
    wall = views.wall(1)
    waves = views.write(tmp_path / "waves.mp4", [views.with_square(wall, 40, 200 + 9 * (i % 2)) for i in range(60)])
    calm = list(range(5))
    assert analysed(waves, MotionGate()) == list(range(60))
    assert analysed(waves, MotionGate(refresh_s=3600, roi=(0.35, 0.5, 0.3, 0.4))) == list(range(60))
    assert analysed(waves, MotionGate(refresh_s=3600, roi=(0, 0, 0.35, 1))) == calm
    assert (
        analysed(waves, MotionGate(refresh_s=3600, roi=(0.1, 0.5, 0.6, 0.4), ignore=[(0.4, 0.5, 0.15, 0.25)])) == calm
    )
    elsewhere = MotionGate(refresh_s=3600, roi=(0.1, 0.5, 0.6, 0.4), ignore=[(0.8, 0.5, 0.15, 0.25), (0, 0, 0.05, 1)])
    assert analysed(waves, elsewhere) == list(range(60))


def test_a_lamp_elsewhere_is_no_motion(tmp_path: Path) -> None:
    """Exposure is taken out by the mean of what is looked at, not of what is not."""
    wall = views.wall(1)
    lamp = wall.copy()
    lamp[:, 380:] = np.clip(lamp[:, 380:].astype(int) + 70, 0, 255)
    lit = views.write(tmp_path / "lamp.mp4", [lamp if i // 15 % 2 else wall for i in range(60)])
    assert {15, 30, 45} < set(analysed(lit, MotionGate(refresh_s=3600)))
    assert analysed(lit, MotionGate(refresh_s=3600, roi=(0, 0, 0.5, 1))) == list(range(5))


# Evaluation


def test_only_the_part_s_truth_counts(tmp_path: Path) -> None:
    """Where the truth is wrong outside of the part, nothing is lost; where it is wrong inside, all."""
    tiny = tiny_engine.write(tmp_path, smoothing="off").path
    for name in ("test", "testannot"):
        (tmp_path / name).mkdir()
    rgb = np.full((192, 320, 3), COLOURS["white"], np.uint8)
    rgb[48:144, 80:240] = COLOURS["square"]
    truth = np.full((192, 320), NAMES.index("black"), np.uint8)
    truth[48:144, 80:240] = SQUARE
    cv2.imwrite(str(tmp_path / "test" / "a.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(tmp_path / "testannot" / "a.png"), truth)

    def accuracy(*overrides: str) -> float:
        street = {"streams": [{"source": "synthetic://street"}], "engine": {"name": str(tiny)}}
        return float(evaluate.run(validated(street, overrides), tmp_path, "test")["pixel_accuracy"])

    assert accuracy() == pytest.approx(0.25, abs=0.01)
    assert accuracy("streams[0].roi=[0.25, 0.25, 0.5, 0.5]") == 1
    assert accuracy("streams[0].roi=[0, 0, 0.25, 1]") == 0
    assert accuracy("streams[0].roi=[0.25, 0.25, 0.5, 0.5]", "streams[0].tiling={columns: 2, rows: 2}") == 1


# What cannot be


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[0.5, 0, 0.6, 1]", ["streams[0].roi", "leaves the picture", "x + width is 1.1"]),
        ("[0, 0.75, 1, 0.5]", ["streams[0].roi", "leaves the picture", "y + height is 1.25"]),
        ("[0.5, 0.5, 0, 0.5]", ["streams[0].roi", "its width is 0"]),
        ("[0.5, 0.5, 0.5, 0]", ["streams[0].roi", "its height is 0"]),
        ("[100, 0, 0.5, 1]", ["streams[0].roi[0]: 100", "less than or equal to 1"]),
        ("[0, 0, -0.5, 1]", ["streams[0].roi[2]: -0.5", "greater than or equal to 0"]),
        ("[0, 0, 1]", ["streams[0].roi[3]", "required"]),
        ("left", ["streams[0].roi", "'left'"]),
    ],
)
def test_an_impossible_part_is_named(given: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        validated({"streams": [{"source": "synthetic://street"}]}, [f"streams[0].roi={given}"])
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value).replace("Field r", "r")


def test_check_tells_what_is_analysed(streamseg_cli: StreamsegCli, tiny_engine: Path, tmp_path: Path) -> None:
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text(
        "streams:\n"
        "- {id: gate, source: 'synthetic://street?size=640x480', roi: [0.5, 0.25, 0.5, 0.5], tiling: {columns: 2}}\n"
        "- {id: yard, source: 'synthetic://street?size=640x480'}\n"
        f"engine: {{name: '{tiny_engine}'}}\n"
    )
    done = streamseg_cli("check", cameras)
    assert done.code == 0, done
    assert "640x480, of which 320x240 at 320,120, in 2x1 tiles, " in done.stdout
    assert done.stdout.count("of which") == done.stdout.count("tiles") == 1


def test_shares_that_add_up_to_one_only_in_decimals_are_a_part() -> None:
    (stream,) = validated(
        {"streams": [{"source": "synthetic://street"}]}, ["streams[0].roi=[0.9, 0.7, 0.1, 0.3]"]
    ).streams
    assert stream.roi == (0.9, 0.7, 0.1, 0.3)
    assert View(stream.roi).part(1000, 1000) == Roi(900, 700, 100, 300)


def test_all_of_the_picture_is_no_part() -> None:
    assert View((0, 0, 1, 1)).part(640, 480) is None
