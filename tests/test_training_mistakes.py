"""What a training of one's own data trips over: told in one line, and before it costs anything."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapes import labelled, write

from streamseg.errors import ConfigError
from streamseg.evaluation.evaluate import labelled as evaluated
from streamseg.evaluation.labels import label_values
from streamseg.quantising.calibration import _stills
from streamseg.training import datasets, train
from streamseg.training.bundle import claim
from streamseg.training.datasets import load
from streamseg.training.kinds import Folders, Stills
from streamseg.training.recipe import read_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shapes").mkdir()
    return labelled(tmp_path / "shapes")


def relabel(folder: Path, to: np.ndarray) -> None:
    """Label value v becomes `to`[v]."""
    for file in (folder / "trainannot").glob("*"):
        cv2.imwrite(str(file), to[cv2.imread(str(file), cv2.IMREAD_UNCHANGED)])


def warned(folder: Path, work: Path, caplog: pytest.LogCaptureFixture, **changes: Any) -> list[str]:
    """What is told of the data before there is a network."""
    recipe = write(work / "r.yaml", folder, architecture="none", report=None, **changes)
    with caplog.at_level(logging.WARNING, "streamseg"), pytest.raises(ConfigError, match="architecture 'none'"):
        train(recipe, out=work / "run")
    return caplog.messages


@pytest.mark.parametrize(("kind", "step"), [(np.uint8, 64), (np.uint16, 1000)])
def test_label_values_beyond_the_classes_are_told_and_so_are_the_classes_that_are_nowhere(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type, step: int
) -> None:
    relabel(folder, np.array([0, step, 2 * step, 9, 9, 9, 9, 255], kind))
    beyond, nowhere = warned(folder, tmp_path, caplog)
    assert "of the pixels are ignored, as the 3 classes do not name their values" in beyond
    assert all(f"{value} (" in beyond for value in (step, 2 * step))
    assert nowhere == "no pixel in any data set is box or disc: that will not be learned"


def test_pictures_from_which_nothing_can_be_learned_are_refused(folder: Path, tmp_path: Path) -> None:
    relabel(folder, np.full(8, 9, np.uint8))
    with pytest.raises(
        ConfigError, match=r"shapes/train: no pixel is of any class of the recipe \(ground, box, disc\)"
    ):
        train(write(tmp_path / "r.yaml", folder), out=tmp_path / "run")


def test_boxes_of_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    images = '[{"id": 1, "file_name": "00.png"}]'
    (folder / "train" / "b.json").write_text(
        f'{{"images": {images}, "annotations": [], "categories": [{{"id": 1, "name": "box"}}]}}'
    )
    boxes = {"kind": "boxes", "root": str(folder / "train"), "annotations": "b.json"}
    with pytest.raises(ConfigError, match=r"train/b\.json: no picture has anything labelled in it"):
        train(write(tmp_path / "r.yaml", folder, datasets=[boxes]), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("augment", "told"),
    [
        ({"scale": [2, 0.5]}, r"augment\.scale: .*must be \[smallest, largest\]"),
        ({"paste": 1, "paste_classes": ["bocks"]}, r"paste_classes: 'bocks' is no class of the recipe \(ground, box"),
    ],
)
def test_augmentation_that_cannot_be_meant_is_refused(
    folder: Path, tmp_path: Path, augment: dict[str, Any], told: str
) -> None:
    for changes in ({"augment": augment}, {"finish": {"augment": augment}}):
        with pytest.raises(ConfigError, match=told):
            read_recipe(write(tmp_path / "r.yaml", folder, **changes))


def test_a_faulty_item_is_told_without_the_list_that_it_is_in(folder: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, datasets=[{"kind": "folders", "root": "x", "splits": ["a"], "rot": 1}])
    with pytest.raises(ConfigError) as told:
        read_recipe(recipe)
    assert str(told.value).endswith("r.yaml: datasets[0].rot: Extra inputs are not permitted (got 1)")


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"PK\x03\x04 and no more"])
def test_a_damaged_checkpoint_is_told(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt cannot be read \(.*start anew with --no-resume"):
        train(write(tmp_path / "r.yaml", folder), out=tmp_path, resume=True, threads=1)


def test_a_folder_that_cannot_take_the_engine_is_told_before_the_training(tmp_path: Path, tiny_engine: Path) -> None:
    shutil.copytree(tiny_engine, tmp_path / "engine")
    claim(tmp_path / "engine", "tiny")
    claim(tmp_path / "new" / "engine", "tiny")
    with pytest.raises(ConfigError, match=r"engine holds the engine 'tiny', which 'gate' would replace"):
        claim(tmp_path / "engine", "gate")
    with pytest.raises(ConfigError, match=r"no engine can be written to .*give another --out"):
        claim(tmp_path / "engine" / "engine.yaml", "tiny")
    (tmp_path / "engine" / "engine.yaml").write_text("damaged")
    claim(tmp_path / "engine", "gate")


def test_labels_of_sixteen_bits_are_not_wrapped_into_classes(folder: Path) -> None:
    relabel(folder, np.array([0, 257, 1000, 9, 9, 9, 9, 255], np.uint16))
    seen = {int(value) for _, truth in evaluated(folder, "train") for value in np.unique(truth)}
    assert seen == {0, 255}


def test_colours_of_sixteen_bits_are_those_of_eight(tmp_path: Path) -> None:
    colours = np.array([[[64, 0, 128], [128, 64, 128]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), colours[..., ::-1] * np.uint16(257))
    assert label_values(tmp_path / "a.png").tolist() == colours.tolist()
    cv2.imwrite(str(tmp_path / "a.png"), colours[..., ::-1] << 8)
    assert label_values(tmp_path / "a.png").tolist() == colours.tolist()


def test_pictures_far_larger_than_the_engine_sees_them_are_told_and_scaled_with_their_labels(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, told = warned(folder, tmp_path, caplog, width=64, height=48, augment={"scale": [0.7, 1.2]})
    assert told.startswith(
        "shapes/train: pictures 96 wide are trained on as they are, but the engine will see them at "
    )
    assert "say `width: 64`" in told
    caplog.clear()
    data = [{"kind": "folders", "root": str(folder), "splits": ["train"], "width": 64}]
    (other,) = warned(folder, tmp_path, caplog, width=64, height=48, augment={"scale": [0.7, 1.2]}, datasets=data)
    assert "wide" not in other
    (source,) = read_recipe(tmp_path / "r.yaml").datasets
    small = load(source, ("ground", "box", "disc"), None, tmp_path)
    whole = load(Folders(kind="folders", root=folder, splits=("train",)), ("ground", "box", "disc"), None, tmp_path)
    assert {rgb.shape for rgb in small.rgb} == {(43, 64, 3)}
    for less, more in zip(small.labels, whole.labels, strict=True):
        assert (less == 1).mean() == pytest.approx((more == 1).mean(), abs=0.02)
        assert set(np.unique(less)) == set(np.unique(more))


@pytest.mark.parametrize("width", [None, 64])
def test_pictures_that_find_no_room_in_memory_are_read_again_and_are_the_same(
    folder: Path, tmp_path: Path, width: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"kind": "folders", "root": str(folder), "splits": ["train"], "width": width, "map": {"disc": "box"}}
    held = load(Folders.model_validate(data), ("ground", "box", "disc"), None, tmp_path)
    monkeypatch.setattr(datasets, "_room", lambda: 5.0 * held.rgb[0].nbytes / 3 * 4)
    told = warned(folder, tmp_path, caplog, datasets=[data])
    assert [line for line in told if line.startswith("shapes/train: the memory lacks")]
    again = load(Folders.model_validate(data), ("ground", "box", "disc"), None, tmp_path)
    for one, other in ((held.rgb, again.rgb), (held.labels, again.labels)):
        assert [array is other[i] for i, array in enumerate(other)] == [True] * 5 + [False] * 3
        for before, after in zip(one, other, strict=True):
            np.testing.assert_array_equal(before, after)


def test_data_for_labelled_folders_is_refused_where_there_are_none(folder: Path, tmp_path: Path) -> None:
    streets = [{"kind": "synthetic", "pictures": 2}]
    recipe = write(tmp_path / "r.yaml", folder, datasets=streets, report=None)
    with pytest.raises(ConfigError, match=r"--data: the recipe has no labelled folders"):
        train(recipe, out=tmp_path / "run", data_root=folder, threads=1)


def test_calibration_takes_the_splits_and_not_a_picture_that_lies_beside_them(folder: Path) -> None:
    cv2.imwrite(str(folder / "confusion.png"), np.zeros((32, 32, 3), np.uint8))
    assert {file.parent.name for file in _stills(folder)} == {"train"}
    assert [file.name for file in _stills(folder / "test")] == ["00.png", "01.png", "02.png"]


@pytest.mark.parametrize("ending", [".bmp", ".tif", ".TIFF"])
def test_pictures_of_any_usual_kind_are_read_and_none_is_passed_over(folder: Path, ending: str) -> None:
    for file in list((folder / "train").iterdir())[:3]:
        cv2.imwrite(str(file.with_suffix(ending)), cv2.imread(str(file)))
        file.unlink()
    data = Folders(kind="folders", root=folder, splits=("train",))
    stills = Stills(kind="pictures", root=folder / "train", files=("**/*",))
    names = ("ground", "box", "disc")
    assert len(load(data, names, None, folder)) == len(list(evaluated(folder, "train"))) == 8
    assert len(load(stills, names, None, folder)) == len(_stills(folder)) == 8


def test_a_split_that_no_list_names_does_not_become_all_pictures(folder: Path, tmp_path: Path) -> None:
    where = {"images": "train", "labels": "trainannot", "names": "{split}.txt"}
    (folder / "some.txt").write_text("01\n03\n")
    for split, told in (("some", ""), ("smoe", r"smoe\.txt, which lists the split's pictures, is missing")):
        data = Folders.model_validate({"kind": "folders", "root": str(folder), "splits": [split], **where})
        if not told:
            assert len(load(data, ["ground", "box", "disc"], None, tmp_path)) == 2
            continue
        with pytest.raises(ConfigError, match=told):
            load(data, ["ground", "box", "disc"], None, tmp_path)
