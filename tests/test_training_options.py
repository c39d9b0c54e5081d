"""What a recipe may choose: foreign classes mapped to its own, hard pixels, the schedule; and the log that is left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from shapes import classes, labelled, write

from streamseg.errors import ConfigError
from streamseg.synthetic import CLASSES
from streamseg.training import read_recipe, train
from streamseg.training.data import batches
from streamseg.training.datasets import load
from streamseg.training.kinds import Folders, Synthetic
from streamseg.training.losses import hard, segmentation_loss
from streamseg.training.recipe import Losses
from streamseg.training.schedule import fall


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("shapes"))


def values(source: Folders | Synthetic, *ours: str) -> set[int]:
    return {int(v) for labels in load(source, ours, None, Path()).labels for v in np.unique(labels)}


def test_classes_of_a_labelled_folder_are_mapped_to_the_recipes(folder: Path) -> None:
    theirs = {"kind": "folders", "root": folder, "splits": ("train",), "classes": ("ground", "box", "disc")}
    own = load(Folders(**theirs), ["ground", "box", "disc"], None, Path())
    for changes, boxes, discs, ground in (
        ({"map": {"box": "thing", "disc": "thing"}, "others": "rest"}, 1, 1, 0),
        ({"map": {"box": "thing", "disc": None}, "others": "rest"}, 1, 255, 0),
        ({"map": {"disc": "thing"}}, 255, 1, 255),
    ):
        mapped = load(Folders(**theirs, **changes), ["rest", "thing"], None, Path())
        for before, after in zip(own.labels, mapped.labels, strict=True):
            assert set(after[before == 0]) == {ground}
            assert set(after[before == 1]) == {boxes}
            assert set(after[before == 2]) == {discs}
            assert set(after[before == 255]) == {255}
    reordered = load(Folders(**theirs), ["disc", "box", "ground"], None, Path())
    np.testing.assert_array_equal(reordered.labels[0] == 0, own.labels[0] == 2)


def test_the_streets_classes_are_mapped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    street: dict[str, Any] = {"kind": "synthetic", "pictures": 1, "width": 128, "height": 96}
    plain = load(Synthetic(**street), CLASSES, None, Path()).labels[0]
    mapped = load(
        Synthetic(**street, map={"road": "way", "pavement": "way"}, others="else"), ["else", "way"], None, Path()
    )
    np.testing.assert_array_equal(mapped.labels[0] == 1, np.isin(plain, (3, 4)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"map": {"boks": "box"}}, r"map: the folders data set has no class 'boks'; it has ground, box, disc"),
        ({"map": {"box": "thing"}}, r"datasets\[0\]\.map: 'thing' is no class of the recipe \(ground, box, disc\)"),
        ({"others": "thing"}, r"datasets\[0\]\.map: 'thing' is no class of the recipe"),
    ],
)
def test_a_map_with_an_unknown_class_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    data = {"kind": "folders", "root": str(folder), "splits": ["train"]} | changes
    with pytest.raises(ConfigError, match=named):
        train(write(tmp_path / "r.yaml", folder, datasets=[data]), out=tmp_path / "run")


def test_hard_pixels_are_those_given_little_chance_and_at_least_a_share() -> None:
    chance = torch.tensor([0.99, 0.95, 0.9, 0.8, 0.6, 0.3, 0.2, 0.1, 0.5])
    logs = torch.stack([chance, 1 - chance]).log().view(1, 2, 3, 3)
    truth = torch.zeros(1, 3, 3, dtype=torch.long)
    truth[0, 2, 2] = 255  # the last, of 0.5, is not labelled
    assert hard(logs, truth, 0.1, 0.7).flatten().tolist() == [False] * 4 + [True] * 4 + [False]
    assert hard(logs, truth, 0.75, 0.7).flatten().tolist() == [False] * 2 + [True] * 6 + [False]
    assert hard(logs, truth, 0.25, 0.0).flatten().tolist() == [False] * 6 + [True] * 2 + [False]
    assert not hard(logs, torch.full_like(truth, 255), 0.5, 0.7).any()


def test_with_ohem_only_hard_pixels_pull_and_without_labels_nothing_does() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 0, :, :4] = 5  # sure and right on the left, undecided on the right
    logits.requires_grad_()
    labels, how = torch.zeros(1, 16, 16, dtype=torch.uint8), Losses(ohem=0.1, jaccard=0)
    segmentation_loss([logits], labels, torch.ones(2), how).backward()
    assert logits.grad is not None
    assert not logits.grad[..., :4].any()
    assert (logits.grad[:, 0, :, 4:] < 0).all()
    assert float(segmentation_loss([logits], labels + 255, torch.ones(2), how).detach()) == 0


def test_the_learning_rate_falls_as_the_recipe_says() -> None:
    assert [fall("poly", t) for t in (0, 0.5, 1, 1.01)] == pytest.approx([1, 0.5**0.9, 0, 0])
    assert [fall("cosine", t) for t in (0, 0.5, 1)] == pytest.approx([1, 0.505, 0.01])


def test_the_log_is_left_as_csv_as_json_and_as_a_picture_and_goes_on_after_a_resume(
    folder: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path / "r.yaml", folder, schedule="poly", losses={"ohem": 0.1})
    train(recipe, out=tmp_path / "run", epochs=2, threads=1)
    done = train(recipe, out=tmp_path / "run", epochs=3, resume=True, threads=1)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "loss" in line] == [1, 2, 3]
    assert [float(row["loss"]) for row in table if row["loss"]] == [line["loss"] for line in lines if "loss" in line]
    assert done.report is not None
    assert lines[-1]["miou"] == pytest.approx(done.report.miou(), abs=1e-4)
    assert set(lines[-1]["iou"]) == {"ground", "box", "disc"}
    drawn = cv2.imread(str(done.curves))
    assert drawn is not None
    red, blue = (drawn == (50, 50, 210)).all(2), (drawn == (190, 110, 30)).all(2)
    assert red.sum() > 100
    assert blue.sum() > 100


def test_a_class_that_is_not_drawn_stays_so_in_the_bundle(folder: Path, tmp_path: Path) -> None:
    from streamseg.training.bundle import write_bundle

    named = classes("ground", "box", "disc")
    named[0]["draw"] = False
    done = train(
        write(tmp_path / "r.yaml", folder, classes=named, report=None, epochs=1), out=tmp_path / "run", threads=1
    )
    bundle = write_bundle(done, tmp_path / "engine", None, tmp_path)
    assert bundle.undrawn == {0}
    assert (bundle.path / "curve.png").read_bytes() == done.curves.read_bytes()


def test_the_last_epochs_see_whole_pictures_changed_less_where_the_recipe_says_so(folder: Path, tmp_path: Path) -> None:
    finish = {"after": 0.5, "crop": [96, 64], "augment": {"scale": [1, 1], "aspect": 1, "rotate_degrees": 0, "flip": 0}}
    plain = {"colour": 0, "grey": 0, "noise": 0, "blur": 0, "jpeg": 0}
    finish["augment"] |= plain
    path = write(tmp_path / "r.yaml", folder, crop=[64, 32], epochs=4, finish=finish)
    recipe = read_recipe(path)
    assert recipe.at(0.49).crop == (64, 32)
    last = recipe.at(0.5)
    sets = [load(one, recipe.names, None, tmp_path) for one in recipe.datasets]
    whole = {rgb.tobytes() for rgb in sets[0].rgb}
    batch = next(batches(sets, last, 2, 0))
    assert {rgb.tobytes() for rgb in batch.rgb} <= whole
    train(path, out=tmp_path / "run")  # two sizes in one run
