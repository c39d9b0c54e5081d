"""Bounding boxes as labels: the masks made of them, what the network makes of those, and what faulty JSON is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from streamseg.errors import ConfigError
from streamseg.training import read_recipe, train
from streamseg.training.boxes import KEPT, OBJECT, OTHER, UNSURE, object_shape, pseudo_labels, refined_labels
from streamseg.training.coco import Box, read_boxes
from streamseg.training.datasets import load
from streamseg.training.kinds import Refine
from streamseg.training.weak import PseudoLabels
from tests.boxes_of import boxes_of

CLASSES = ("ground", "disc", "bar")
IDS = {"disc": 1, "bar": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "streamseg" / "boxes"


def noisy(rgb: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.clip(rgb + np.random.default_rng(seed).normal(0, 8, rgb.shape), 0, 255).astype(np.uint8)


def scene(turned: float = 30) -> tuple[np.ndarray, np.ndarray, Box]:
    """A turned orange ellipse on a grey wall with a green foot: rgb, labels (1 is the ellipse), and its box."""
    rgb = np.full((120, 160, 3), (120, 125, 130), np.uint8)
    rgb[90:] = (40, 110, 50)
    labels = np.zeros((120, 160), np.uint8)
    for target, paint in ((rgb, (220, 120, 30)), (labels, 1)):
        cv2.ellipse(target, (80, 60), (42, 22), turned, 0, 360, paint, -1)
    x, y, w, h = cv2.boundingRect(labels)
    return noisy(rgb), labels, Box(x, y, x + w, y + h, "disc")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


@pytest.mark.parametrize("turned", [0, 30, 80])
def test_grabcut_finds_the_object_in_its_box_better_than_the_box_does(turned: float) -> None:
    rgb, labels, box = scene(turned)
    found = pseudo_labels(rgb, [box], IDS, 0)
    known = found != 255
    assert iou(found[known] == 1, labels[known] == 1) > 0.97
    assert (labels[box.inside] == 1).mean() < 0.8  # which is the box's own IoU
    assert (found[box.inside] == 255).mean() < 0.25
    outside = np.ones(labels.shape, bool)
    outside[box.inside] = False
    assert not found[outside].any()


def test_the_same_picture_gives_the_same_mask() -> None:
    rgb, _, box = scene()
    first = object_shape(rgb, box)
    cv2.setRNGSeed(99)
    np.testing.assert_array_equal(object_shape(rgb, box), first)


def test_where_colours_tell_nothing_and_in_small_boxes_the_box_is_filled() -> None:
    flat = np.full((80, 80, 3), 100, np.uint8)
    for box in (Box(10, 10, 60, 50, "disc"), Box(0, 0, 80, 80, "disc")):
        shape = object_shape(flat, box)
        assert (shape == OBJECT).mean() > 0.6
        assert (shape != OTHER).mean() > 0.8
    small = object_shape(flat, Box(5, 5, 12, 30, "disc"))
    assert (small == OBJECT).mean() > 0.8
    assert not (small == UNSURE).any()


def test_the_smaller_box_lies_in_front_and_crowds_and_unwanted_categories_are_ignored() -> None:
    flat = np.full((80, 80, 3), 100, np.uint8)
    large, small = Box(0, 0, 80, 80, "disc"), Box(36, 30, 44, 50, "bar")
    found = pseudo_labels(flat, [small, large], IDS, 0)
    assert (found[40, 40], found[40, 20]) == (2, 1)
    crowd = Box(0, 0, 30, 30, "disc", crowd=True)
    found = pseudo_labels(flat, [crowd, Box(40, 40, 48, 48, "cat")], {"disc": 1, "cat": 255}, 0)
    assert (found[:30, :30] == 255).all()
    assert (found[40:48, 40:48] == 255).all()
    assert (found[60:] == 0).all()
    assert (pseudo_labels(flat, [small], IDS)[60:] == 255).all()  # no class for what lies outside


def chances(labels: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """A network that says `labels`, as sure as that: f32 [3, H, W]."""
    rest = (1 - sure) / 2
    return np.stack([np.where(labels == k, sure, rest) for k in range(3)]).astype(np.float32)


def test_refinement_mends_a_wrong_mask_by_what_the_network_sees_in_the_box() -> None:
    _, labels, box = scene()
    wrong = np.zeros_like(labels)
    wrong[box.inside] = 1
    seen = labels.copy()
    seen[:20, :20] = 1  # outside every box: an error of the network, not to be learned
    new = refined_labels(wrong, chances(seen), [box], IDS, 0)
    np.testing.assert_array_equal(new, labels)
    assert iou(wrong == 1, labels == 1) < 0.8


def test_refinement_keeps_the_labels_of_a_box_in_which_the_network_sees_too_little() -> None:
    _, labels, box = scene()
    little = np.zeros_like(labels)
    little[box.top : box.top + round(box.height * KEPT * 0.8), box.left : box.right] = 1
    np.testing.assert_array_equal(refined_labels(labels, chances(little), [box], IDS, 0), labels)


def test_refinement_ignores_what_the_network_is_unsure_of_and_leaves_crowds_alone() -> None:
    _, labels, box = scene()
    unsure = chances(labels)
    unsure[:, :, 80:] = np.array([0.45, 0.55, 0])[:, None, None]
    labels[100:, 100:] = 255
    new = refined_labels(labels, unsure, [box, Box(100, 100, 160, 120, "disc", crowd=True)], IDS, 0)
    assert (new[box.top : box.bottom, 80 : box.right] == 255).all()
    assert (new[100:, 100:] == 255).all()
    np.testing.assert_array_equal(new[:, :80], labels[:, :80])


def test_a_class_of_boxes_cannot_appear_in_the_box_of_another() -> None:
    labels = np.zeros((40, 40), np.uint8)
    disc, bar = Box(0, 0, 20, 20, "disc"), Box(20, 20, 40, 40, "bar")
    mistaken = np.full((40, 40), 2)
    mistaken[:20, :10] = 1
    new = refined_labels(labels, chances(mistaken, 0.8), [disc, bar], IDS, 0)
    assert (new[:20, :10] == 1).all()
    assert (new[20:, 20:] == 2).all()
    assert not (new[:20, :20] == 2).any()


def test_refinements_come_when_their_share_of_the_training_is_done() -> None:
    made = PseudoLabels([], [], {}, 0, Refine(after=0.4, rounds=2))
    assert [made.due(share) for share in (0, 0.39, 0.4, 0.5, 0.69, 0.7, 0.9)] == [0, 0, 1, 0, 0, 1, 0]
    resumed = PseudoLabels([], [], {}, 0, Refine(after=0.4, rounds=2))
    assert [resumed.due(share) for share in (0.8, 0.9)] == [True, False]
    assert not PseudoLabels([], [], {}, 0, None).due(1)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Six pictures with a disc and a bar each, their labels, and boxes.json made of those."""
    for i in range(6):
        rng = np.random.default_rng(i)
        rgb, labels = np.full((64, 96, 3), (110, 115, 120), np.uint8), np.zeros((64, 96), np.uint8)
        x, y = int(rng.integers(16, 40)), int(rng.integers(16, 48))
        for target, red, green in ((rgb, (210, 60, 40), (40, 190, 60)), (labels, 1, 2)):
            cv2.circle(target, (x, y), 14, red, -1)
            cv2.rectangle(target, (62, y - 12), (80, y + 10), green, -1)
        for folder, image in (("train", noisy(rgb, i)[..., ::-1]), ("trainannot", labels)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "set" / folder / f"{i}.png"), image)
    boxes_of(tmp_path / "set", ["train"], {1: "disc", 2: "bar"}, tmp_path / "set" / "boxes.json")
    return tmp_path / "set"


def recipe(drawn: Path, **said: Any) -> Path:
    path = drawn.parent / "recipe.yaml"
    boxes = {"kind": "boxes", "root": "set", "annotations": "boxes.json", "others": "ground"} | said
    content = {
        "name": "weak",
        "licence": "none",
        "data": "drawn by the test",
        "width": 96,
        "height": 64,
        "classes": [{"name": name, "colour": [60 * i, 0, 0]} for i, name in enumerate(CLASSES)],
        "datasets": [boxes],
        "report": {"kind": "folders", "root": "set", "splits": ["train"]},
        "crop": [96, 64],
        "batch": 3,
        "epochs": 20,
        "warmup_epochs": 0,
        "ema": 0.5,
        "augment": {"scale": [0.9, 1.2]},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def loaded(drawn: Path, **said: Any) -> Any:
    read = read_recipe(recipe(drawn, **said))
    return load(read.datasets[0], read.names, None, drawn.parent)


def test_a_network_learns_pixels_from_boxes_and_makes_its_labels_anew(
    drawn: Path, capfd: pytest.CaptureFixture
) -> None:
    done = train(recipe(drawn, refine={"after": 0.5}), out=drawn / "run", threads=1)
    assert done.report is not None
    assert done.report.miou() > 0.6
    assert capfd.readouterr().out.count("refining what boxes show") >= 1


def test_masks_are_kept_for_the_next_run_and_made_anew_for_other_boxes(drawn: Path, cache: Path) -> None:
    first = loaded(drawn)
    stamps = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    again = loaded(drawn)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == stamps
    assert len(stamps) == len(first) == 6
    for one, other in zip(first.labels, again.labels, strict=True):
        np.testing.assert_array_equal(one, other)
    edited = json.loads((drawn / "boxes.json").read_text())
    edited["annotations"][0]["bbox"][2] -= 5
    (drawn / "boxes.json").write_text(json.dumps(edited))
    loaded(drawn)
    assert len(list(cache.iterdir())) == 7


def test_a_damaged_file_in_the_cache_is_made_again(drawn: Path, cache: Path) -> None:
    first = loaded(drawn)
    for file in cache.iterdir():
        file.write_bytes(b"")
    np.testing.assert_array_equal(loaded(drawn).labels[0], first.labels[0])


def test_wide_pictures_are_scaled_with_their_boxes(drawn: Path) -> None:
    whole, small = loaded(drawn), loaded(drawn, width=48)
    assert small.rgb[0].shape == (32, 48, 3)
    halved = whole.labels[0][::2, ::2]
    both = (halved != 255) & (small.labels[0] != 255)
    assert (halved == small.labels[0])[both].mean() > 0.95


def test_categories_become_classes_or_the_rest_or_nothing(drawn: Path) -> None:
    one = loaded(drawn, map={"bar": None})
    assert set(np.unique(one.labels[0])) == {0, 1, 255}
    assert (one.labels[0][:, 64:78] == 255).any()
    with pytest.raises(ConfigError, match=r"boxes\.json has no category 'car'; it has disc, bar"):
        loaded(drawn, map={"car": "disc"})
    with pytest.raises(ConfigError, match=r"datasets\[0\]\.map: 'car' is no class of the recipe"):
        loaded(drawn, map={"disc": "car"})
    with pytest.raises(
        ConfigError, match=r"no category of boxes\.json is a class .*categories: disc, bar; classes: ground"
    ):
        loaded(drawn, map={"disc": "ground", "bar": None})


FAULTS: list[tuple[str, Any, str]] = [
    ("images", None, "it has no list `images`"),
    ("annotations", {}, "it has no list `annotations`"),
    ("images", [], r"annotations\[0\] is of picture 1, which `images` does not have"),
    ("images.0.file_name", None, r"images\[0\] has no `file_name`"),
    ("images.0.file_name", "train/none.jpg", r"train/none\.jpg is missing; boxes\.json lists it \(images\[0\]\)"),
    ("images.0.width", 192, r"train/0\.png is 96x64, but its boxes are for 192x64; was it scaled\?"),
    ("categories.0.id", None, r"categories\[0\] has no `id`"),
    ("annotations.0.category_id", 9, r"annotations\[0\] has category 9; `categories` has 1 \(disc\), 2 \(bar\)"),
    ("annotations.0.image_id", 77, r"annotations\[0\] is of picture 77"),
    ("images.0.id", [1], r"images\[0\]\.id must be a number, not \[1\]"),
    ("annotations.0.image_id", [1], r"annotations\[0\]\.image_id must be a number"),
    ("annotations.0.bbox", [1, 2, 3], r"annotations\[0\]\.bbox must be \[left, top, width, height\], not \[1, 2, 3\]"),
    ("annotations.0.bbox", [1, 2, -3, 4], r"annotations\[0\]\.bbox must be"),
    ("annotations.0.bbox", [1, 2, "3", 4], r"annotations\[0\]\.bbox must be"),
    ("annotations.0.bbox", [90, 2, 30, 4], r"0\.png: box \[90, 2, 30, 4\] of annotation 1 reaches outside 96x64"),
]


@pytest.mark.parametrize(("where", "value", "told"), FAULTS)
def test_a_faulty_json_is_refused_by_the_entry_at_fault(drawn: Path, where: str, value: Any, told: str) -> None:
    content = json.loads((drawn / "boxes.json").read_text())
    *path, last = [int(key) if key.isdigit() else key for key in where.split(".")]
    inner = content
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = copy.deepcopy(value)
    (drawn / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=told):
        loaded(drawn)


def test_a_file_that_is_no_json_and_a_missing_one_are_refused(drawn: Path) -> None:
    text = (drawn / "boxes.json").read_text()
    for broken in (text[: len(text) // 2], "", "[]", "\0"):
        (drawn / "boxes.json").write_text(broken)
        with pytest.raises(ConfigError, match=r"boxes\.json is no(t JSON| COCO JSON)"):
            loaded(drawn)
    with pytest.raises(ConfigError, match=r"none\.json cannot be read: No such file"):
        loaded(drawn, annotations="none.json")


def test_boxes_are_cut_to_the_picture_and_empty_ones_left_out(drawn: Path) -> None:
    content = json.loads((drawn / "boxes.json").read_text())
    content["annotations"][0]["bbox"] = [-0.6, -0.4, 20.2, 20]
    content["annotations"][1]["bbox"] = [10, 10, 0, 5]
    (drawn / "boxes.json").write_text(json.dumps(content))
    boxed, names = read_boxes(drawn / "boxes.json", drawn)
    assert names == ["disc", "bar"]
    (only,) = boxed[0].fitted(96, 64)
    assert (only.left, only.top, only.right, only.bottom) == (0, 0, 20, 20)


@pytest.mark.shared
def test_first_masks_of_camvids_objects_are_nearer_to_the_truth_than_their_boxes(tmp_path: Path) -> None:
    root = Path(__file__).parents[2] / "shared" / "data" / "camvid"
    read, _ = read_boxes(boxes_of(root, ["test"], {8: "car", 9: "person"}, tmp_path / "b.json", 400), root)
    hits, unions = np.zeros(2), np.zeros(2)
    for one in read[::12]:
        rgb = cv2.cvtColor(cv2.imread(str(one.file)), cv2.COLOR_BGR2RGB)
        truth = cv2.imread(str(root / "testannot" / f"{one.file.stem}.png"), cv2.IMREAD_UNCHANGED)
        for box in one.fitted(480, 360):
            true = truth[box.inside] == {"car": 8, "person": 9}[box.category]
            shape = object_shape(rgb, box)
            for i, mask in enumerate((np.ones_like(true), shape == OBJECT)):
                known = (truth[box.inside] != 11) & (shape != UNSURE)
                hits[i] += (mask & true & known).sum()
                unions[i] += ((mask | true) & known).sum()
    assert hits[1] / unions[1] > hits[0] / unions[0] + 0.05
