"""Training end to end on a handful of pictures: it learns, it resumes where it stopped, and says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from processes import Finished
from shapes import CLASSES, classes, drawn, labelled, write

from streamseg import synthetic
from streamseg.engine.bundle import Bundle
from streamseg.errors import ConfigError
from streamseg.training import read_recipe, train
from streamseg.training.augment import Sample, augment
from streamseg.training.data import Pictures, batches, class_frequency
from streamseg.training.datasets import load
from streamseg.training.kinds import Synthetic
from streamseg.training.losses import segmentation_loss, soft_jaccard, soft_weights
from streamseg.training.recipe import Augment, Losses, Recipe

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("shapes"))


def losses(out: Path) -> list[float]:
    with (out / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_training_lowers_the_loss_and_leaves_a_network_that_segments_unseen_pictures(
    folder: Path, tmp_path: Path
) -> None:
    done = train(write(tmp_path / "r.yaml", folder, epochs=12), out=tmp_path / "run", threads=1)
    course = losses(tmp_path / "run")
    assert len(course) == 12
    assert course[-1] < 0.75 * course[0]  # the logged loss is smoothed over 20 steps
    assert done.report is not None
    assert done.report.miou() > 0.5
    rgb, labels = drawn(200)
    image = ((rgb / 255 - done.recipe.mean) / done.recipe.std).astype(np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(str(done.network), providers=["CPUExecutionProvider"])
    seen = session.run(None, {"image": image})[0][0].argmax(0)
    assert (seen == labels[2::4, 2::4])[labels[2::4, 2::4] < 3].mean() > 0.8


def stopped_midway(recipe: Path, out: Path) -> dict[str, Any]:
    """Trains in a process of its own until two epochs are logged, then presses Ctrl-C; the place in its checkpoint."""
    command = [sys.executable, "-m", "streamseg", "train", str(recipe), "--threads", "1"]
    command += ["--work", str(out), "--out", str(out / "engine")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (out / "log.csv").exists() or len(losses(out)) < 2:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "no epoch within a minute"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.decode().strip().endswith(f"stopped: the same command goes on from {out / 'checkpoint.pt'}")
    place = torch.load(out / "checkpoint.pt", weights_only=True)["place"]
    return dict(place)


def test_ctrl_c_saves_and_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(folder: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, epochs=12, learning_rate=2e-4)
    place = stopped_midway(recipe, tmp_path / "parts")
    assert 4 <= place["seen"] < 24
    assert place["seen"] == 2 * place["epoch"] + place["step"]
    resumed = train(recipe, out=tmp_path / "parts", resume=True, threads=1)
    whole = train(recipe, out=tmp_path / "whole", threads=1)
    assert resumed.epochs == whole.epochs == 12
    assert len(losses(tmp_path / "parts")) == 12
    assert resumed.loss == pytest.approx(whole.loss, rel=0.05)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert (ours - theirs).norm() <= 0.02 * theirs.norm() + 1e-3


def test_a_deadline_ends_the_run_early_with_a_whole_schedule(folder: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = train(write(tmp_path / "r.yaml", folder, epochs=10_000), out=tmp_path / "run", minutes=0.05)
    assert done.epochs < 10_000
    assert time.monotonic() - began < 60
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    assert rates[-1] < 0.1 * rates[0]


def test_a_deadline_does_not_wait_for_the_end_of_an_epoch(folder: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, epochs=1, epoch_pictures=1_000_000)
    assert train(recipe, out=tmp_path / "run", minutes=0.02).epochs < 0.1


def test_resuming_where_nothing_was_started_or_another_network_was_is_refused(folder: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, epochs=1)
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(recipe, out=tmp_path / "run", resume=True)
    train(recipe, out=tmp_path / "run", threads=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    for names in (("ground", "box"), ("box", "ground", "disc")):  # in another order there are as many
        told = rf"checkpoint\.pt is of the classes ground, box, disc, not {', '.join(names)}; .*--no-resume"
        with pytest.raises(ConfigError, match=told):
            train(write(tmp_path / "r.yaml", folder, classes=classes(*names)), out=tmp_path / "run", resume=True)
    other = write(tmp_path / "other.yaml", folder, architecture="tiny")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt does not fit this recipe .*start anew with --no-resume"):
        train(other, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": "many"}, r"batch: .*'many'"),
        ({"crop": [100, 64]}, r"crop: .*multiples of 32.*100"),
        ({"datasets": [{"kind": "folders", "root": "x", "splits": []}]}, r"datasets\[0\]\.splits"),
        ({"datasets": [{"kind": "folders", "root": "x", "splits": "train"}]}, r"splits: expected a list"),
        (
            {"datasets": [{"kind": "folders", "root": "x", "splits": ["a"], "map": {7: "a"}}]},
            r"see `class_map` \(got 7\)",
        ),
        ({"datasets": [{"kind": "zip"}]}, r"datasets\[0\]: .*'folders', 'synthetic', 'clips'"),
        ({"classes": [{"name": "a b", "colour": [0, 0, 300]}] * 2}, r"classes\[0\]\.name.*classes\[0\]\.colour\[2\]"),
        ({"augment": {"fliip": 1}}, r"augment\.fliip: Extra inputs"),
        ({"architecture": "egde"}, r"'egde' is unknown; there is: edge"),
    ],
)
def test_a_faulty_recipe_is_refused_by_naming_the_field(
    folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        train(write(tmp_path / "r.yaml", folder, **changes), out=tmp_path / "run")


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml")
    for text, told in (("a: [", "is not YAML"), ("epochs: 20\nepochs: 200", "epochs is given twice .* line 2")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_recipe(tmp_path / "r.yaml")


def test_missing_pictures_or_labels_are_refused_with_their_path(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no labelled pictures in .*nowhere/train; say where"):
        train(write(tmp_path / "r.yaml", folder), out=tmp_path / "run", data_root=tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "a.png"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"trainannot/a\.png, the labels of a picture, cannot be read"):
        train(write(tmp_path / "r.yaml", folder), out=tmp_path / "run", data_root=tmp_path)


def sets(*shares: float) -> tuple[Pictures, ...]:
    """Data sets of 6 pictures each; set i is one grey of value 10 * i, all of class i."""
    flat = np.ones((64, 96), np.uint8)
    return tuple(
        Pictures(f"set {i}", share, [np.repeat(flat[..., None] * 10 * i, 3, 2)] * 6, [flat * i] * 6)
        for i, share in enumerate(shares)
    )


def small(**changes: Any) -> Recipe:
    base: dict[str, Any] = {"name": "tiny", "licence": "none", "data": "none", "crop": [96, 64], "batch": 4}
    base["classes"] = classes(*CLASSES)
    base["datasets"] = [{"kind": "synthetic", "pictures": 1}]
    return Recipe.model_validate(base | changes)


def test_an_epoch_mixes_the_data_sets_by_share_and_begins_anywhere_with_the_same_pictures() -> None:
    recipe = small(epoch_pictures=400)
    whole = list(batches(sets(0.8, 0.2), recipe, epoch=3, first=0))
    assert len(whole) == 100
    from_second = np.mean([(batch.labels == 1).any((1, 2)).mean() for batch in whole])
    assert 0.14 < from_second < 0.26
    for batch, again in zip(whole[97:], batches(sets(0.8, 0.2), recipe, epoch=3, first=97), strict=True):
        np.testing.assert_array_equal(batch.rgb, again.rgb)
        np.testing.assert_array_equal(batch.labels, again.labels)


def test_augmentation_moves_picture_and_labels_together() -> None:
    rgb, labels = drawn(5)
    how = Augment(colour=0, grey=0, noise=0, blur=0, jpeg=0)
    for seed in range(20):
        made = augment(Sample(rgb, labels), (96, 64), how, np.random.default_rng(seed))
        seen, truth = made.rgb, made.labels
        assert seen.shape == (64, 96, 3)
        assert set(np.unique(truth)) <= {0, 1, 2, 7, 255}
        inside = cv2.erode((truth == 1).astype(np.uint8), np.ones((5, 5))) > 0
        assert (seen[inside][:, 0] > 150).all()
        assert (seen[inside][:, 1] < 90).all()


def test_softened_weights_stay_mild_and_average_one_over_the_pixels() -> None:
    weights = soft_weights([0.6, 0.39, 0.01], 1.1)
    assert float((weights * torch.tensor([0.6, 0.39, 0.01])).sum()) == pytest.approx(1)
    assert 1 < weights[2] / weights[0] < 6
    np.testing.assert_allclose(class_frequency(sets(0.75, 0.25), 3), [0.75, 0.25, 0])


def test_the_jaccard_term_is_zero_for_a_perfect_answer_and_leaves_ignored_pixels_out() -> None:
    truth = torch.tensor([[[0, 1], [1, 255]]])
    perfect = torch.nn.functional.one_hot(truth.where(truth < 2, 0), 2).permute(0, 3, 1, 2).float()
    assert float(soft_jaccard(perfect, truth)) == pytest.approx(0)
    half = torch.full_like(perfect, 0.5)  # class 0: 0.5 / (1.5 + 1 - 0.5); class 1: 1 / (1.5 + 2 - 1)
    assert float(soft_jaccard(half, truth)) == pytest.approx(1 - (0.25 + 0.4) / 2)


def test_a_batch_without_one_labelled_pixel_teaches_nothing() -> None:
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    nothing = torch.full((2, 32, 32), 255, dtype=torch.uint8)
    loss = segmentation_loss([logits, logits], nothing, torch.ones(3), Losses())
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_streets_are_drawn_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = Synthetic(kind="synthetic", pictures=2, width=128, height=96)
    drawn_now = load(source, synthetic.CLASSES, None, tmp_path)
    (kept,) = (tmp_path / "streamseg" / "streets").iterdir()
    stamp = os.stat(kept).st_mtime_ns
    again = load(source, synthetic.CLASSES, None, tmp_path)
    assert os.stat(kept).st_mtime_ns == stamp
    np.testing.assert_array_equal(np.stack(drawn_now.rgb), np.stack(again.rgb))
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(load(source, synthetic.CLASSES, None, tmp_path).labels[1], again.labels[1])


@pytest.mark.shared
def test_the_shipped_recipe_reads_its_data() -> None:
    path = REPOSITORY / "engines" / "street-edge" / "recipe.yaml"
    recipe = read_recipe(path)
    assert len(recipe.classes) == 11
    pictures = load(recipe.datasets[0], recipe.names, None, path.parent)
    assert len(pictures) == 468
    frequency = class_frequency([pictures], 11)
    assert frequency.argmax() == 3  # road
    assert frequency.min() > 0.001


def test_the_command_line_trains_a_bundle_that_can_be_evaluated(
    folder: Path, tmp_path: Path, streamseg_here: Callable[..., Finished]
) -> None:
    recipe = write(tmp_path / "recipe.yaml", folder)
    engine = tmp_path / "tiny"
    trained = streamseg_here("train", recipe, "--out", engine, "--work", tmp_path / "work", "--threads", 1)
    assert trained.code == 0, trained
    evaluated = streamseg_here("eval", engine, folder, "--split", "test", "--json")
    manifest = Bundle.open(engine).manifest
    assert manifest.accuracy["miou"] == json.loads(evaluated.stdout)["miou"]
    assert [c.name for c in manifest.classes] == list(CLASSES)
    assert manifest.parameters is not None
    assert 1e6 < manifest.parameters < 2e6
