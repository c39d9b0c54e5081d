"""`streamseg eval --confusion` and `--record`: the matrix counted by hand, its picture, and what the manifest keeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_engine as tiny
from clips import Clips
from tiny_engine import COLOURS, NAMES
from typer.testing import CliRunner

from streamseg.cli import app
from streamseg.engine.bundle import Bundle
from streamseg.evaluation import matrix
from streamseg.evaluation.accuracy import Confusion
from streamseg.types import ClassInfo

GROUND, BLACK, WHITE, SQUARE = range(4)
QUARTER = 160 * 96 // 4


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return tiny.write(tmp_path, "quarters", smoothing="off").path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture in four quarters, one of each class; the truth has square where black is, and nothing is black."""
    labels = np.kron(np.array([[GROUND, BLACK], [WHITE, SQUARE]]), np.ones((48, 80), int)).astype(np.uint8)
    rgb = np.array(list(COLOURS.values()), np.uint8)[labels]
    for name in ("test", "testannot"):
        (tmp_path / "data" / name).mkdir(parents=True)
    labels[labels == BLACK] = SQUARE
    cv2.imwrite(str(tmp_path / "data" / "test" / "1.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "data" / "testannot" / "1.png"), labels)
    return tmp_path / "data"


def evaluated(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.exception
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_matrix_has_a_row_for_each_true_class(engine: Path, folder: Path) -> None:
    counts = np.array(evaluated(engine, folder)["confusion"])
    assert counts.shape == (4, 4)
    assert counts.sum() == 4 * QUARTER
    assert counts[BLACK].sum() == 0
    # Scores are at a quarter of the size: the borders between the quarters move by a pixel or two.
    assert counts[GROUND, GROUND] == pytest.approx(QUARTER, rel=0.1)
    assert counts[SQUARE, BLACK] == pytest.approx(QUARTER, rel=0.1)
    assert counts[SQUARE, SQUARE] == pytest.approx(QUARTER, rel=0.1)


def test_the_picture_of_a_folder_is_written_beside_the_report(engine: Path, folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "confusion.png"
    report = evaluated(engine, folder, "--confusion", drawn)
    picture = np.asarray(cv2.imread(str(drawn)))
    title = f"{report['engine']} on {folder} test"
    assert np.array_equal(picture, matrix.draw(Confusion.of(report["confusion"]), Bundle.open(engine).classes, title))


@pytest.mark.parametrize("clips", [1, 2])
def test_labelled_clips_have_one_too(clips: int, engine: Path, clip: Clips, tmp_path: Path) -> None:
    source = clip("h264", frames=4, width=160, height=96)
    paths = []
    for number in range(clips):
        paths.append(tmp_path / f"{number}.mp4")
        paths[-1].write_bytes(source.read_bytes())
        np.savez(paths[-1].with_suffix(".npz"), labels=np.full((4, 96, 160), WHITE, np.uint8))
    report = evaluated(engine, *paths, "--confusion", tmp_path / "confusion.png")
    counts = report["confusion"] if clips == 1 else report["confusion"]["off"]
    assert sum(counts[WHITE]) == clips * 4 * 96 * 160
    assert sum(map(sum, counts)) == sum(counts[WHITE])
    assert cv2.imread(str(tmp_path / "confusion.png")) is not None


@pytest.mark.parametrize("classes", [2, 4, 11, 21, 60])
def test_cells_are_coloured_by_their_share(classes: int) -> None:
    """All right but the last class, which is taken for the first; the second last does not occur."""
    confusion = Confusion(classes)
    confusion.counts[range(classes - 1), range(classes - 1)] = 1000
    confusion.counts[-1, 0] = 10
    if classes > 2:
        confusion.counts[-2] = 0
    named = [ClassInfo(i, f"a-rather-long-name-{i}", (255, i, 0)) for i in range(classes)]
    picture = matrix.draw(
        confusion, named, "engine@0123456789ab on data that has quite a long name, as paths often have"
    )
    layout = matrix.laid_out([c.name for c in named])

    def fill(row: int, column: int) -> tuple[int, ...]:
        x, y = layout.corner(row, column)
        return tuple(int(value) for value in picture[y + 3, x + 3])

    _, green, red = fill(0, 0)
    assert green > red + 80
    _, green, red = fill(classes - 1, 0)
    assert red > green + 80
    assert fill(0, classes - 1) == (255, 255, 255)
    assert fill(classes - 1, classes - 1) == (255, 255, 255)
    if classes > 2:
        assert len({fill(classes - 2, column) for column in range(classes)} - {(255, 255, 255)}) == 1
    # Each class's colour stands beside its row.
    strip = picture[layout.corner(1, 0)[1] + layout.cell // 2, : layout.left]
    assert (strip == (0, 1, 255)).all(1).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--confusion", "matrix.txt"], "a picture's name is wanted"),
        (["--confusion", "nowhere/matrix.png"], "there is no folder"),
        (["--confusion", "matrix.png", "--smoothing", "off,average"], "one way of smoothing"),
        (["--record", "both", "--smoothing", "off,average"], "one way of smoothing"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_measured(
    options: list[str], words: str, engine: Path, folder: Path
) -> None:
    done = CliRunner().invoke(app, ["eval", str(engine), str(folder), *options])
    assert words in str(done.exception)


def test_nothing_but_void_cannot_be_drawn_or_recorded(engine: Path, folder: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(folder / "testannot" / "1.png"), np.full((96, 160), 255, np.uint8))
    for options in (["--confusion", str(tmp_path / "matrix.png")], ["--record", "void"]):
        done = CliRunner().invoke(app, ["eval", str(engine), str(folder), *options])
        assert "no labels" in str(done.exception)
    assert not (tmp_path / "matrix.png").exists()
    assert Bundle.open(engine).manifest.accuracy == {}


def test_what_is_doubted_is_not_recorded(engine: Path, folder: Path) -> None:
    labels = cv2.imread(str(folder / "testannot" / "1.png"), cv2.IMREAD_UNCHANGED)
    labels[:8, :8], labels[:8, 8:16] = 20, 30
    cv2.imwrite(str(folder / "testannot" / "1.png"), labels)
    done = CliRunner().invoke(app, ["eval", str(engine), str(folder), "--record", "others"])
    assert re.search(r"--record: not recorded: .*labels \(20, 30\) are none of quarters@.* 255\)", str(done.exception))
    assert Bundle.open(engine).manifest.accuracy == {}
    labels[:8, :16] = 255
    cv2.imwrite(str(folder / "testannot" / "1.png"), labels)
    evaluated(engine, folder, "--record", "ours")
    assert Bundle.open(engine).manifest.accuracy["data"] == "ours"


def test_a_recorded_accuracy_is_in_the_manifest_and_the_model_is_not_touched(engine: Path, folder: Path) -> None:
    before = Bundle.open(engine)
    report = evaluated(engine, folder, "--record", "four quarters")
    after = Bundle.open(engine)
    assert after.identity == before.identity
    assert after.manifest.accuracy == {
        "data": "four quarters",
        "pictures": 1,
        "miou": report["miou"],
        "pixel_accuracy": report["pixel_accuracy"],
        "iou": report["iou"],
    }
    assert set(report["iou"]) == set(NAMES)
    assert after.manifest.model_copy(update={"accuracy": {}}) == before.manifest
