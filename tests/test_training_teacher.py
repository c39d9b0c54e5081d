"""Unlabelled pictures and a teacher: what is asked, what is kept, and that the network comes to agree."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import tiny_engine as tiny
import torch
from clips import Clips, picture, read_number
from shapes import classes, drawn, labelled, write
from torch.nn.functional import one_hot

from streamseg.engine.bundle import find
from streamseg.engine.bundle import write as write_engine
from streamseg.errors import ConfigError, EngineNotFound
from streamseg.training import train
from streamseg.training.augment import Sample, augment
from streamseg.training.data import Batch, Pictures, batches, class_frequency
from streamseg.training.datasets import load
from streamseg.training.kinds import Clips as ClipsSet
from streamseg.training.kinds import Stills
from streamseg.training.losses import distillation_loss
from streamseg.training.recipe import Augment, Distill, Losses, Recipe
from streamseg.training.teacher import Teacher, Teachers, merging, softened

STILL = Augment(scale=(1, 1), aspect=1, rotate_degrees=0, flip=0, colour=0, grey=0, noise=0, blur=0, jpeg=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "streamseg" / "teachers"


def unlabelled(count: int = 3) -> Pictures:
    rgb = [picture(7 * i, 160, 96) for i in range(count)]
    return Pictures("some", 1.0, rgb, [np.full((96, 160), 255, np.uint8)] * count)


def by_teacher(clip: Clips, tiny_engine: Path, **changes: Any) -> dict[str, Any]:
    """Recipe entries: the frames of a clip, taught by the engine that names the nearest colour."""
    file = clip("h264", frames=50, width=160, height=96)
    data = {"kind": "clips", "root": str(file.parent), "files": [file.name], "width": 160, "every_s": 0.2}
    return {
        "datasets": [data | {"teacher": True}],
        "distill": {"engine": str(tiny_engine)},
        "classes": classes(*tiny.NAMES),
        "report": None,
        "crop": [160, 96],
        "epoch_pictures": 16,
    } | changes


def test_a_network_learns_from_an_unlabelled_clip_what_the_teacher_sees_in_it(
    clip: Clips, tiny_engine: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path / "r.yaml", tmp_path, **by_teacher(clip, tiny_engine, epochs=16, augment={"flip": 0.5}))
    done = train(recipe, out=tmp_path / "run", threads=1)
    rgb = picture(23, 160, 96)  # a moment between those it was shown
    image = ((rgb / 255 - done.recipe.mean) / done.recipe.std).astype(np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(str(done.network), providers=["CPUExecutionProvider"])
    ours = session.run(None, {"image": image})[0][0].argmax(0)
    named = np.array([tiny.COLOURS[name] for name in tiny.NAMES])
    theirs = np.abs(rgb[2::4, 2::4, None].astype(int) - named).sum(-1).argmin(-1)
    assert {1, 2, 3} <= set(theirs.flat)
    assert (ours == theirs).mean() > 0.9


def test_the_teacher_is_asked_once_about_each_picture(tiny_engine: Path, own_cache: Path, tmp_path: Path) -> None:
    how = Distill(engine=str(tiny_engine))
    teachers = Teachers(how, tiny.NAMES, tmp_path)
    first = teachers.taught(unlabelled(2))
    assert first.soft is not None
    stamps = {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")}
    assert len(stamps) == 2
    again = teachers.taught(unlabelled(3))
    assert again.soft is not None
    np.testing.assert_array_equal(again.soft[:2], first.soft)
    now = {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")}
    assert len(now) == 3
    assert stamps.items() <= now.items()
    Teachers(Distill(engine=str(tiny_engine), temperature=2), tiny.NAMES, tmp_path).taught(unlabelled(2))
    assert len(list(own_cache.rglob("*.npy"))) == 5  # another question
    for file in now:
        file.write_bytes(b"")
    damaged = teachers.taught(unlabelled(1))
    assert damaged.soft is not None
    np.testing.assert_array_equal(damaged.soft, first.soft[:1])


def test_a_live_teacher_says_what_it_sees_in_pictures_as_they_were_changed(tiny_engine: Path, tmp_path: Path) -> None:
    teachers = Teachers(Distill(engine=str(tiny_engine), live=True), tiny.NAMES, tmp_path)
    before = teachers.taught(unlabelled(2))
    assert before.soft is not None
    changed = np.stack([255 - rgb for rgb in before.rgb])
    known = np.stack(before.soft)
    known[0, :, :10] = 0  # what lies beyond the picture
    known[1] = 0  # a picture that the teacher was not asked about
    live = teachers.again(Batch(changed, np.zeros((2, 96, 160), np.uint8), known)).soft
    assert live is not None
    now = softened(Teacher(find(tiny_engine), Distill(engine=""), tiny.NAMES).chances(changed[0]), 1.0)
    np.testing.assert_array_equal(live[0, :, 10:], now[:, 10:])
    assert (live[0, :, 10:].argmax(2) != known[0, :, 10:].argmax(2)).mean() > 0.2
    assert not live[0, :, :10].any()
    assert not live[1].any()


@pytest.mark.parametrize("live", [True, False])
def test_only_a_live_teacher_teaches_what_becomes_of_colours(
    clip: Clips, tiny_engine: Path, tmp_path: Path, live: bool
) -> None:
    changes = {"distill": {"engine": str(tiny_engine), "live": live}, "augment": {"colour": 1}, "epochs": 12}
    done = train(write(tmp_path / "r.yaml", tmp_path, **by_teacher(clip, tiny_engine, **changes)), out=tmp_path / "run")
    rgb = np.clip(picture(23, 160, 96).astype(int) - 60, 0, 255).astype(np.uint8)
    image = ((rgb / 255 - done.recipe.mean) / done.recipe.std).astype(np.float32).transpose(2, 0, 1)[None]
    ours = done.model(torch.from_numpy(image))[0].argmax(0).numpy()
    theirs = Teacher(find(tiny_engine), Distill(engine=""), tiny.NAMES).chances(rgb).argmax(2)
    assert bool((ours == theirs).mean() > 0.7) is live


def test_mirrored_and_scaled_views_of_a_teacher_lie_on_top_of_each_other(tiny_engine: Path) -> None:
    rgb = cv2.GaussianBlur(picture(9, 160, 96), (0, 0), 3)
    plain = Teacher(find(tiny_engine), Distill(engine=""), tiny.NAMES).chances(np.asarray(rgb))
    assert plain.shape == (24, 40, 4)
    assert plain[15, 12].argmax() == 3  # the square covers x 36..60 and y 48..72
    for how in (Distill(engine="", flip=True), Distill(engine="", scales=(1.0, 1.5), size=(160, 96))):
        views = Teacher(find(tiny_engine), how, tiny.NAMES).chances(np.asarray(rgb))
        assert np.abs(views - plain).mean() < 0.02
        assert np.abs(np.roll(views, 1, 1) - plain).mean() > 2 * np.abs(views - plain).mean()


def test_a_teacher_of_one_size_looks_through_windows_that_leave_no_seam(tiny_engine: Path, tmp_path: Path) -> None:
    free = find(tiny_engine)
    entry = free.manifest.input.model_copy(update={"width": 96, "height": 96, "fixed": True})
    square = write_engine(tmp_path / "square", free.manifest.model_copy(update={"input": entry}), free.program)
    for width, height in ((160, 96), (96, 160), (400, 96), (64, 64)):
        rgb = np.asarray(cv2.GaussianBlur(picture(9, width, height), (0, 0), 3))
        how = Distill(engine="", scales=(1.0, 2.0), flip=True)
        windowed = Teacher(square, how, tiny.NAMES).chances(rgb)
        whole = Teacher(free, Distill(engine="", size=(width, height)), tiny.NAMES).chances(rgb)
        assert windowed.shape == whole.shape == (height // 4, width // 4, 4)
        assert np.abs(windowed - whole).mean() < 0.02
        np.testing.assert_allclose(windowed.sum(2), 1, atol=1e-3)


def test_the_mean_of_teachers_counts_one_named_twice_twice(tiny_engine: Path, tmp_path: Path) -> None:
    free = find(tiny_engine)
    swapped = [free.manifest.classes[i] for i in (1, 0, 2, 3)]  # calls ground black, and black ground
    write_engine(tmp_path / "other", free.manifest.model_copy(update={"classes": tuple(swapped)}), free.program)
    how = Distill(engine=("other", "other", str(tiny_engine)))
    pictures = Teachers(how, tiny.NAMES, tmp_path).taught(unlabelled(1))
    assert pictures.soft is not None
    ground = pictures.soft[0][10]  # a row of ground alone
    assert np.abs(ground[:, :2].astype(int) - (85, 170)).max() <= 1


def test_classes_of_the_teacher_are_taken_together() -> None:
    theirs = ["void", "car", "bus", "person"]
    how = Distill(engine="", classes={"other": "rest", "vehicle": ("car", "bus", "lorry"), "person": ("person",)})
    table = merging(how, theirs, ["other", "person", "vehicle"], "voc")
    assert table.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(ConfigError, match="classes: boat: voc has none of ship, ferry; it has void, car"):
        merging(Distill(engine="", classes={"boat": ("ship", "ferry")}), theirs, ["boat"], "voc")
    with pytest.raises(ConfigError, match="classes: tree: voc has none of tree"):
        merging(Distill(engine=""), theirs, ["car", "tree"], "voc")  # no map: the same names


def test_a_temperature_softens_and_what_the_teacher_has_no_class_for_says_nothing() -> None:
    chances = np.array([[0.8, 0.2], [0.2, 0.1]])  # the second pixel: 70 % are classes that nobody asked for
    assert softened(chances, 1).tolist() == [[204, 51], [0, 0]]
    assert softened(chances, 2)[0].tolist() == [170, 85]  # sqrt(4) to 1


def test_what_the_teacher_said_moves_with_the_picture() -> None:
    rgb, labels = drawn(5, 192, 128)
    labels[labels > 2] = 0
    shares = [cv2.resize(np.uint8(255) * (labels == k), (48, 32), interpolation=cv2.INTER_AREA) for k in range(5)]
    sample = Sample(rgb, labels, np.stack(shares, 2))
    for seed in range(20):
        how = Augment(scale=(0.5, 2), rotate_degrees=15)
        made = augment(sample, (128, 96), how, np.random.default_rng(seed))
        assert made.soft is not None
        assert made.soft.shape == (24, 32, 5)
        parts = [
            cv2.resize(np.uint8(255) * (made.labels == k), (32, 24), interpolation=cv2.INTER_AREA) for k in range(5)
        ]
        truth = np.stack(parts, 2).astype(int)
        wrong = {
            (dy, dx): np.abs(np.roll(made.soft, (dy, dx), (0, 1)) - truth)[2:-2, 2:-2].mean()
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        assert min(wrong, key=wrong.__getitem__) == (0, 0)
        assert wrong[0, 0] < 5


def student(chance: torch.Tensor) -> torch.Tensor:
    return chance.clamp(min=1e-6).log().requires_grad_()


def test_the_loss_is_least_where_network_and_teacher_agree_and_leaves_unsure_pixels_out() -> None:
    truth = one_hot(torch.tensor([[[0, 1], [1, 2]]]), 3).permute(0, 3, 1, 2).float()
    chance = 0.9 * truth + 0.1 / 3
    soft = (255 * chance.permute(0, 2, 3, 1)).round().to(torch.uint8)
    how, ones = Losses(jaccard=0.5), torch.ones(3)
    agreed = float(distillation_loss([student(chance)], soft, ones, how, Distill(engine="")).detach())
    assert abs(agreed) < 0.02
    wrong = float(distillation_loss([student(chance.roll(1, 1))], soft, ones, how, Distill(engine="")).detach())
    assert wrong > 1
    unsure = Distill(engine="", confident=0.97)
    assert float(distillation_loss([student(chance.roll(1, 1))], soft, ones, how, unsure).detach()) == 0
    half = Distill(engine="", weight=0.5)
    halved = float(distillation_loss([student(chance.roll(1, 1))], soft, ones, how, half).detach())
    assert halved == pytest.approx(wrong / 2)


def test_coarse_heads_learn_too_and_pictures_without_a_teacher_teach_nothing() -> None:
    main, coarse = torch.zeros(1, 3, 8, 8, requires_grad=True), torch.zeros(1, 3, 2, 2, requires_grad=True)
    soft = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    distillation_loss([main, coarse], soft, torch.ones(3), Losses(), Distill(engine="")).backward()
    assert main.grad is not None
    assert coarse.grad is not None
    assert not main.grad.any()
    assert not coarse.grad.any()
    soft[..., 1] = 255
    distillation_loss([main, coarse], soft, torch.ones(3), Losses(), Distill(engine="")).backward()
    assert (main.grad[:, 1] < 0).all()
    assert (coarse.grad[:, 1] < 0).all()


def test_hard_labels_and_a_teacher_mix_in_one_batch_and_objects_are_pasted_by_what_it_says() -> None:
    grey = np.full((64, 96, 3), 90, np.uint8)
    hard = Pictures("labelled", 0.5, [grey], [np.zeros((64, 96), np.uint8)])
    soft = np.zeros((16, 24, 2), np.uint8)
    soft[..., 0] = 255
    seen = soft.copy()
    seen[4:10, 6:12] = (0, 255)
    taught_by = Pictures("taught", 0.5, [grey, grey + 99], [np.full((64, 96), 255, np.uint8)] * 2, [soft, seen])
    settings: dict[str, Any] = {"name": "x", "licence": "", "data": "", "batch": 4, "crop": (96, 64)}
    paste = STILL.model_copy(update={"paste": 1.0, "paste_classes": ("thing",)})
    data = {"kind": "synthetic", "pictures": 1}
    recipe = Recipe(**settings, classes=classes("ground", "thing"), datasets=[data], augment=paste, epoch_pictures=64)
    pasted = 0
    for batch in batches([hard, taught_by], recipe, 0, 0):
        assert batch.soft is not None
        labelled = (batch.labels != 255).any((1, 2))
        assert not batch.soft[labelled].any()
        assert batch.soft[~labelled].any((1, 2, 3)).all()
        for rgb, chance in zip(batch.rgb[~labelled], batch.soft[~labelled], strict=True):
            if rgb.min() == 90 and rgb.max() > 90:  # the dark picture with the bright one's object
                pasted += 1
                np.testing.assert_array_equal(rgb[2::4, 2::4, 0] > 90, chance[..., 1] > 0)
    assert pasted > 3
    np.testing.assert_allclose(class_frequency([taught_by], 2), [1 - 36 / 768, 36 / 768])


@pytest.mark.parametrize("across", [False, True])
def test_objects_are_pasted_from_one_data_set_to_another_where_the_recipe_says_so(across: bool) -> None:
    half = np.zeros((64, 96), np.uint8)
    half[:, :48] = 1
    empty = Pictures("empty", 0.5, [np.full((64, 96, 3), 90, np.uint8)], [half * 0])
    things = Pictures("things", 0.5, [np.where(half[..., None], np.uint8(9), np.uint8(200)).repeat(3, 2)], [half])
    how = STILL.model_copy(update={"paste": 1.0, "paste_classes": ("thing",), "paste_across": across})
    settings: dict[str, Any] = {"name": "x", "licence": "", "data": "", "batch": 4, "crop": (96, 64)}
    data = {"kind": "synthetic", "pictures": 1}
    recipe = Recipe(**settings, classes=classes("ground", "thing"), datasets=[data], augment=how, epoch_pictures=40)
    seen = [set(np.unique(rgb)) for batch in batches([empty, things], recipe, 0, 0) for rgb in batch.rgb]
    assert ({9, 90} in seen) is across
    assert {9, 200} in seen


def test_frames_of_clips_are_taken_at_the_interval_and_thinned_evenly(clip: Clips) -> None:
    file = clip("h264", frames=50, width=320, height=96)
    every = load(
        ClipsSet(kind="clips", root=file.parent, files=(file.name,), every_s=0.2, width=160), ["a"], None, Path()
    )
    assert [read_number(rgb) for rgb in every.rgb] == list(range(0, 50, 5))
    assert every.rgb[0].shape == (48, 160, 3)
    assert {int(v) for labels in every.labels for v in np.unique(labels)} == {255}
    few = ClipsSet(kind="clips", root=file.parent, files=(file.name,), every_s=0.04, limit=4, width=160)
    numbers = [read_number(rgb) for rgb in load(few, ["a"], None, Path()).rgb]
    assert len(numbers) == 4
    assert all(8 <= later - earlier <= 16 for earlier, later in itertools.pairwise(numbers))


def test_unlabelled_pictures_are_found_in_folders_within_and_scaled(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for index, place in enumerate((".", "a", "a/b")):
        cv2.imwrite(str(tmp_path / place / f"{index}.png"), np.full((100, 200, 3), 50 * index, np.uint8))
    found = load(Stills(kind="pictures", root=tmp_path, width=96), ["a"], None, Path())
    assert sorted(int(rgb.mean()) for rgb in found.rgb) == [0, 50, 100]
    assert {rgb.shape for rgb in found.rgb} == {(48, 96, 3)}
    with pytest.raises(ConfigError, match=r"no clips in .*\*\.mp4.*say where"):
        load(ClipsSet(kind="clips", root=tmp_path), ["a"], None, Path())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"datasets": [{"kind": "clips", "root": "x"}]},
            r"datasets\[0\]: nobody labelled these pictures; say `teacher",
        ),
        ({"datasets": [{"kind": "clips", "root": "x", "teacher": True}]}, r"datasets\[0\]\.teacher: .*no `distill`"),
        ({"distill": {"engine": "x"}}, "distill: no data set asks for the teacher"),
        ({"distill": {"engine": "x", "temperature": 0}}, r"distill\.temperature: .*got 0"),
        ({"datasets": [{"kind": "clips", "root": "x", "every_s": 0}]}, r"datasets\[0\]\.every_s"),
        (
            {
                "datasets": [{"kind": "clips", "root": "x", "teacher": True}],
                "distill": {"engine": "x", "classes": {"boxx": ["car"]}},
            },
            r"distill\.classes: 'boxx' is no class of the recipe \(ground, box, disc\)",
        ),
    ],
)
def test_a_faulty_recipe_is_refused_by_naming_the_field(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        train(write(tmp_path / "r.yaml", tmp_path, **changes), out=tmp_path / "run")


def test_a_teacher_that_is_not_there_or_does_not_fit_is_refused(tmp_path: Path, tiny_engine: Path) -> None:
    root = labelled(tmp_path)
    data = [{"kind": "folders", "root": str(root), "splits": ["train"], "teacher": True}]
    with pytest.raises(EngineNotFound, match="no engine named 'nobody'"):
        train(write(tmp_path / "r.yaml", root, datasets=data, distill={"engine": "nobody"}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="classes: box: tiny has none of box; it has ground, black, white, square"):
        train(
            write(tmp_path / "r.yaml", root, datasets=data, distill={"engine": str(tiny_engine)}), out=tmp_path / "run"
        )
    slip = {"ground": "rest", "box": ["square", "sqare"], "disc": ["white"]}
    distill = {"engine": str(tiny_engine), "classes": slip}
    with pytest.raises(ConfigError, match="classes: box: no teacher has 'sqare'; there are black, ground, square, whi"):
        train(write(tmp_path / "r.yaml", root, datasets=data, distill=distill), out=tmp_path / "run")
