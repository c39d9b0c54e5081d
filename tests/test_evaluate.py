"""`streamseg eval` from end to end: what it says of label maps whose accuracy was counted by hand."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_network
from clips import Clips
from processes import Finished
from shapes import palette
from tiny_engine import NAMES

from streamseg.config import validated
from streamseg.errors import ConfigError
from streamseg.evaluation import evaluate
from streamseg.ingest.frames import file_frames
from streamseg.training.datasets import load
from streamseg.training.kinds import Folders
from streamseg.types import U8

SIZE = (160, 96)
GROUND, BLACK, WHITE, SQUARE = range(len(NAMES))
Corrupt = Callable[[U8], U8]


def run(engine: Path, data: Path, **options: Any) -> dict[str, Any]:
    smoothing = {"mode": options.pop("smoothing", "off")}
    settings = {"streams": [{"source": "synthetic://street"}], "engine": {"name": str(engine)}, "smoothing": smoothing}
    return evaluate.run(validated(settings), data, options.pop("split", "test"), **options)


@pytest.fixture(scope="module")
def predicted(clip: Clips, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, U8]:
    """(a clip, the label maps that eval saved of it), of the size at which it is analysed: nothing is scaled."""
    path = clip("h264", frames=6, width=SIZE[0], height=SIZE[1])
    saved = tmp_path_factory.mktemp("labels") / "saved.npz"
    report = run(tiny_engine, path, save_labels=saved)
    assert report["pictures"] == 6
    assert "miou" not in report
    labels = np.load(saved)["labels"]
    assert labels.shape == (6, *SIZE[::-1])
    assert set(np.unique(labels)) == {GROUND, BLACK, WHITE, SQUARE}
    return path, labels


@pytest.fixture
def folder(predicted: tuple[Path, U8], tmp_path: Path) -> Callable[..., Path]:
    """`folder(corrupt)` -> pictures with annotations made of the engine's own answers, changed by `corrupt`."""

    def make(corrupt: Corrupt = lambda labels: labels, split: str = "test") -> Path:
        for name in (split, f"{split}annot"):
            (tmp_path / name).mkdir()
        path, labels = predicted
        for frame, answer in zip(file_frames(path), labels, strict=True):
            rgb = frame.picture.rgb(*SIZE)
            assert cv2.imwrite(str(tmp_path / split / f"{frame.number}.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
            assert cv2.imwrite(str(tmp_path / f"{split}annot" / f"{frame.number}.png"), corrupt(answer.copy()))
        return tmp_path

    return make


def test_the_engine_s_own_answers_are_perfect(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    report = run(tiny_engine, folder())
    assert report["miou"] == report["pixel_accuracy"] == 1.0
    assert report["iou"] == dict.fromkeys(NAMES, 1.0)
    assert report["pictures"] == 6
    assert report["engine"].startswith("tiny@")


def without_square(labels: U8) -> U8:
    labels[labels == SQUARE] = GROUND
    return labels


def test_a_class_that_is_nowhere_true_costs_what_it_should(
    tiny_engine: Path, folder: Callable[..., Path], predicted: tuple[Path, U8]
) -> None:
    """Every square is ground: IoU of the square 0, of the ground g / (g + s), of the others 1."""
    ground, square = (int((predicted[1] == label).sum()) for label in (GROUND, SQUARE))
    report = run(tiny_engine, folder(without_square))
    assert report["iou"] == {
        "ground": round(ground / (ground + square), 4), "black": 1.0, "white": 1.0, "square": 0.0,
    }  # fmt: skip
    assert report["miou"] == round((ground / (ground + square) + 2) / 4, 4)
    assert report["pixel_accuracy"] == round(1 - square / predicted[1].size, 4)


def left_half_void(labels: U8) -> U8:
    labels[:, : SIZE[0] // 2] = 255
    return labels


def black_is_white_on_the_left(labels: U8) -> U8:
    left = labels[:, : SIZE[0] // 2]
    left[left == BLACK] = WHITE
    return labels


def test_void_pixels_count_nowhere(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    report = run(tiny_engine, folder(lambda labels: left_half_void(black_is_white_on_the_left(labels))))
    assert report["miou"] == report["pixel_accuracy"] == 1.0


def test_classes_that_are_ignored_count_neither_as_true_nor_in_the_mean(
    tiny_engine: Path, folder: Callable[..., Path], predicted: tuple[Path, U8]
) -> None:
    report = run(tiny_engine, folder(black_is_white_on_the_left), ignore=[NAMES[WHITE]])
    assert NAMES[WHITE] not in report["iou"]
    assert report["miou"] == 1.0  # what was wrong was white in truth
    flipped = run(tiny_engine, folder(black_is_white_on_the_left, "other"), split="other", ignore=[NAMES[BLACK]])
    labels = predicted[1]
    missed = (labels == BLACK)[:, :, : SIZE[0] // 2].sum()  # truly white, seen as what is ignored: wrong all the same
    white = (labels == WHITE).sum()
    assert flipped["iou"][NAMES[WHITE]] == pytest.approx(white / (white + missed), abs=1e-3)
    with pytest.raises(ConfigError, match="no class 'dog'"):
        run(tiny_engine, folder(split="third"), split="third", ignore=["dog"])


def test_a_confusion_of_two_classes_costs_both(
    tiny_engine: Path, folder: Callable[..., Path], predicted: tuple[Path, U8]
) -> None:
    labels = predicted[1]
    moved = int((labels[:, :, : SIZE[0] // 2] == BLACK).sum())
    black, white = int((labels == BLACK).sum()), int((labels == WHITE).sum())
    assert moved > 0
    report = run(tiny_engine, folder(black_is_white_on_the_left))
    assert report["iou"]["black"] == round((black - moved) / black, 4)
    assert report["iou"]["white"] == round(white / (white + moved), 4)
    assert report["iou"]["ground"] == report["iou"]["square"] == 1.0


def test_annotations_of_another_size_are_compared_at_theirs(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    report = run(tiny_engine, folder(lambda labels: labels.repeat(3, 0).repeat(3, 1)))
    assert report["miou"] == 1.0


def test_nothing_but_void_has_no_accuracy(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    report = run(tiny_engine, folder(lambda labels: np.full_like(labels, 255)))
    assert report["miou"] is None
    assert json.loads(json.dumps(report, allow_nan=False))["iou"] == dict.fromkeys(NAMES)


@pytest.mark.parametrize("smoothing", ["off", "average"])
def test_a_clip_beside_its_own_answers_is_perfect(
    smoothing: str, tiny_engine: Path, predicted: tuple[Path, U8], tmp_path: Path
) -> None:
    clip = shutil.copy(predicted[0], tmp_path / "clip.mp4")
    saved = tmp_path / "elsewhere.npz"
    run(tiny_engine, clip, smoothing=smoothing, save_labels=saved)
    saved.rename(clip.with_suffix(".npz"))
    report = run(tiny_engine, clip, smoothing=smoothing)
    assert (report["miou"], report["pixel_accuracy"], report["pictures"]) == (1.0, 1.0, 6)
    with pytest.raises(ConfigError, match=r"--save-labels .*clip: this is what is true of the clip"):
        run(tiny_engine, clip, smoothing=smoothing, save_labels=tmp_path / "clip")  # numpy puts .npz behind it


def test_the_command_prints_the_report_as_json(
    streamseg_here: Callable[..., Finished], tiny_engine: Path, folder: Callable[..., Path]
) -> None:
    done = streamseg_here("eval", tiny_engine, folder(without_square, "val"), "--split", "val", "--json")
    assert done.code == 0, done
    report = json.loads(done.stdout)
    assert report["iou"].keys() == set(NAMES)
    assert report["iou"]["square"] == 0
    assert 0 < report["miou"] < report["pixel_accuracy"] < 1


# What is missing or wrong


def test_labels_of_other_classes_are_doubted_but_one_void_label_is_not(
    tiny_engine: Path, folder: Callable[..., Path], streamseg_here: Callable[..., Finished], tmp_path: Path
) -> None:
    def shifted(labels: U8) -> U8:
        labels[labels != GROUND] += 7
        return labels

    done = streamseg_here("eval", tiny_engine, folder(shifted))
    assert done.code == 0, done
    assert "labels (8, 9, 10) are none of tiny@" in done.stderr
    assert "0 to 3 (ground, black, white, square)" in done.stderr
    other = small_network.write(tmp_path / "other").path
    built = streamseg_here("engine", "build", other, "--data", tmp_path, "--pictures", 2)
    assert "labels (8, 9, 10) are none of" in built.stdout, built
    for annotation in (tmp_path / "testannot").iterdir():
        labels = cv2.imread(str(annotation), cv2.IMREAD_UNCHANGED)
        labels[labels != GROUND] = 255
        labels[0] = 11
        assert cv2.imwrite(str(annotation), labels)
    assert "doubt" not in run(tiny_engine, tmp_path)


def test_the_street_and_clips_of_other_classes_are_doubted_too(
    tiny_engine: Path, predicted: tuple[Path, U8], tmp_path: Path
) -> None:
    street = run(tiny_engine, "synthetic://street?frames=1&size=160x96")  # type: ignore[arg-type]
    assert street["doubt"].startswith("the street's labels are sky, building, pole, ")
    assert "has ground, black, white, square: where they differ this measures nothing" in street["doubt"]
    path, labels = predicted
    clip = shutil.copy(path, tmp_path / "clip.mp4")
    np.savez(tmp_path / "clip.npz", labels=labels + (labels > 0) * np.uint8(7))
    assert "labels (8, 9, 10) are none of tiny@" in run(tiny_engine, clip)["doubt"]


def test_labels_with_a_palette_or_of_few_bits_are_read_as_training_reads_them(
    tiny_engine: Path, folder: Callable[..., Path]
) -> None:
    root = folder()
    for file in (root / "testannot").iterdir():
        palette(file, cv2.imread(str(file), cv2.IMREAD_UNCHANGED).tolist(), [(9, 9, 9)] * 4, bits=2)
    assert run(tiny_engine, root)["miou"] == 1.0
    for file in (root / "testannot").iterdir():  # the header says grey in place of the palette
        data = bytearray(file.read_bytes())
        data[25:33] = b"\0" + data[26:29] + zlib.crc32(data[12:25] + b"\0" + data[26:29]).to_bytes(4, "big")
        file.write_bytes(data)
    assert run(tiny_engine, root)["miou"] == 1.0
    source = Folders(kind="folders", root=root, splits=("test",))
    trained_on = load(source, NAMES, None, root).labels
    assert {int(v) for labels in trained_on for v in np.unique(labels)} == {GROUND, BLACK, WHITE, SQUARE}


@pytest.mark.parametrize(("what", "of"), [("folder", r"pictures .*6/6"), ("clip", r"frames .*6/6")])
def test_its_progress_is_shown_where_somebody_looks(
    what: str, of: str, tiny_engine: Path, folder: Callable[..., Path], predicted: tuple[Path, U8]
) -> None:
    data = folder()
    if what == "clip":
        data = Path(shutil.copy(predicted[0], data / "clip.mp4"))
        np.savez(data.with_suffix(".npz"), labels=predicted[1])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamseg", "eval", str(tiny_engine), str(data), "--json"]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}) as run:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # how Linux says that the other side is closed
            while more := os.read(ours, 4096):
                seen += more
        os.close(ours)
        assert json.loads(run.communicate()[0])["pictures"] == 6
    assert re.search(of, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())), seen


def test_a_size_that_the_engine_does_not_take_is_told_with_those_that_it_does(
    streamseg_here: Callable[..., Finished], predicted: tuple[Path, U8], tmp_path: Path
) -> None:
    out = tmp_path / "labels.npz"
    done = streamseg_here("eval", "street-edge", predicted[0], "--save-labels", out, "--size", "100x100")
    assert done.code == 1, done
    assert re.search(r"street-edge@.* takes sides in multiples of 8, not 100x100: ", done.stderr)
    for size in ("100", "100x16", "128x64x5"):
        done = streamseg_here("eval", "street-edge", predicted[0], "--size", size)
        assert (done.code, f"--size '{size}': WIDTHxHEIGHT is wanted" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("testannot/3.png", None, r"testannot/3\.png, the labels of a picture, cannot be read: No such file"),
        ("testannot/3.png", b"no picture", r"testannot/3\.png: not a picture that can be read"),
        ("test/3.png", b"no picture", r"test/3\.png: not a picture that can be read"),
    ],
)
def test_a_picture_or_its_annotation_that_is_not_there_is_named(
    file: str, data: bytes | None, said: str, tiny_engine: Path, folder: Callable[..., Path]
) -> None:
    root = folder()
    (root / file).unlink()
    if data is not None:
        (root / file).write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        run(tiny_engine, root)


def test_a_coloured_annotation_is_refused(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"0\.png is of colours, where the number of a class is wanted"):
        run(tiny_engine, folder(lambda labels: cv2.cvtColor(labels, cv2.COLOR_GRAY2BGR)))


def test_a_split_that_is_not_there_names_those_that_are(tiny_engine: Path, folder: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"train: no pictures; the folder holds test, testannot \(choose .* --split\)"
    ):
        run(tiny_engine, folder(), split="train")
    with pytest.raises(ConfigError, match=r"test holds pictures itself: give the folder above it, and --split test"):
        run(tiny_engine, folder(split="second") / "test")


def test_an_empty_folder_and_a_wrong_path_are_told(tiny_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder holds nothing"):
        run(tiny_engine, tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder; give a folder with SPLIT/"):
        run(tiny_engine, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (None, "no labels beside it"),
        ({"labels": np.zeros((5, 96, 160), np.uint8)}, r"has 6 frames, but clip\.npz has labels for 5"),
        ({"labels": np.zeros((7, 96, 160), np.uint8)}, r"has 6 frames, but clip\.npz has labels for 7"),
        ({"maps": np.zeros((6, 96, 160), np.uint8)}, "not the labels of a clip"),
        ({"labels": np.zeros((6, 96, 160), np.float32)}, r"float32 .*expected uint8"),
        ({"labels": np.zeros((96, 160), np.uint8)}, r"expected uint8 \[F, H, W\]"),
        (b"PK\x03\x04 cut short", "not the labels of a clip"),
    ],
)
def test_labels_of_a_clip_that_do_not_fit_are_told(
    arrays: dict[str, Any] | bytes | None, said: str, tiny_engine: Path, predicted: tuple[Path, U8], tmp_path: Path
) -> None:
    clip = shutil.copy(predicted[0], tmp_path / "clip.mp4")
    if isinstance(arrays, bytes):
        (tmp_path / "clip.npz").write_bytes(arrays)
    elif arrays is not None:
        np.savez(tmp_path / "clip.npz", **arrays)
    with pytest.raises(ConfigError, match=said):
        run(tiny_engine, clip)


def test_a_clip_whose_size_changes_can_be_saved_only_at_one_size(
    tiny_engine: Path, tmp_path: Path, clip: Clips
) -> None:
    path = clip("resized", frames=3, sizes=((320, 240), (320, 180)))
    with pytest.raises(ConfigError, match="give --size"):
        run(tiny_engine, path, save_labels=tmp_path / "labels.npz")
