"""Starting from another engine: what is taken over, what starts afresh, what stays frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from shapes import CLASSES, classes, labelled, write

from streamseg.errors import ConfigError
from streamseg.models import build
from streamseg.training import Recipe, Trained, train, weights
from streamseg.training.bundle import write_bundle

OTHER = {"classes": classes("ground", "thing"), "report": None}
ENGINES = Path(__file__).parents[1] / "engines"
HEADS = {"head", "aux16.1", "aux8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A bundle of three classes, and the run that made it (its checkpoint beside the network)."""
    work = tmp_path_factory.mktemp("trained")
    done = train(write(work / "r.yaml", folder, report=None), out=work / "run", threads=1)
    return write_bundle(done, work / "first", None, work).path, done


def layers(names: list[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("start", ["bundle", "checkpoint"])
def test_everything_is_taken_over_but_the_head_where_the_classes_differ(
    trained: tuple[Path, Trained], start: str
) -> None:
    bundle, done = trained
    init = str(bundle if start == "bundle" else done.network.parent / "checkpoint.pt")
    model = build("edge", 2)
    fresh = weights.initialise(model, "edge", ["ground", "thing"], init, Path())
    assert layers(fresh) == HEADS
    theirs = done.model.state_dict()
    for name, value in model.state_dict().items():
        if name not in fresh:
            torch.testing.assert_close(value, theirs[name], atol=1e-3, rtol=1e-3)  # fp16 in a bundle


def test_a_head_of_as_many_other_classes_starts_afresh_and_one_of_the_same_does_not(
    trained: tuple[Path, Trained],
) -> None:
    bundle, _ = trained
    assert weights.initialise(build("edge", 3), "edge", CLASSES, str(bundle), Path()) == []
    other = weights.initialise(build("edge", 3), "edge", ("ground", "box", "ring"), str(bundle), Path())
    assert layers(other) == HEADS


def test_a_start_that_takes_over_little_is_told(
    trained: tuple[Path, Trained], caplog: pytest.LogCaptureFixture
) -> None:
    weights.initialise(build("edge", 2), "edge", ["ground", "thing"], str(trained[0]), Path())
    assert not caplog.messages
    weights.initialise(build("edge-wide", 3), "edge-wide", CLASSES, str(trained[0]), Path())
    assert re.fullmatch(
        r"init: 80 % of the weights of edge-wide start afresh, .*first/weights\.pt, which is of the architecture edge",
        caplog.messages[0],
    )


def test_the_documented_recipe_starts_from_an_engine_of_its_architecture() -> None:
    documented = (ENGINES / "README.md").read_text().partition("```yaml\nname:")[2].partition("```")[0]
    recipe = Recipe.model_validate(yaml.safe_load("name:" + documented))
    given = torch.load(weights.found(str(recipe.init), ENGINES), weights_only=True)
    assert recipe.architecture == given["architecture"]


def test_a_recipe_names_where_to_start_relative_to_itself_and_learns_faster_for_it(
    trained: tuple[Path, Trained], folder: Path
) -> None:
    bundle, done = trained
    recipe = write(bundle.parent / "again.yaml", folder, init="first", report=None, epochs=1)
    again = train(recipe, out=bundle.parent / "again", threads=1)
    assert again.loss < 1.1 * done.loss


@pytest.mark.parametrize(("freeze", "moved"), [(True, False), (1, True)])
def test_what_is_frozen_stays_and_the_head_learns(
    trained: tuple[Path, Trained], folder: Path, tmp_path: Path, freeze: bool | int, moved: bool
) -> None:
    bundle, _ = trained
    recipe = write(tmp_path / "r.yaml", folder, init=str(bundle), freeze=freeze, ema=0, **OTHER)
    before = build("edge", 2)
    fresh = weights.initialise(before, "edge", ["ground", "thing"], str(bundle), Path())
    done = train(recipe, out=tmp_path / "run", threads=1)
    start, end = before.state_dict(), done.model.state_dict()
    changed = {name for name in start if name not in fresh and not torch.equal(start[name], end[name])}
    assert bool(changed) is moved
    assert any(".running_mean" in name for name in changed) is moved
    assert not torch.equal(start["head.bias"], end["head.bias"])


def test_a_frozen_run_goes_on_where_it_stopped(trained: tuple[Path, Trained], folder: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, init=str(trained[0]), freeze=2, epochs=3, learning_rate=2e-4, **OTHER)
    stopped = write(tmp_path / "s.yaml", folder, init=str(trained[0]), freeze=2, epochs=3, **OTHER)
    train(stopped, out=tmp_path / "parts", epochs=1, threads=1)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["place"]["epoch"] == 1
    resumed = train(recipe, out=tmp_path / "parts", resume=True, threads=1)
    assert resumed.epochs == 3
    assert not torch.equal(resumed.model.stem[0][0].weight, build("edge", 2).stem[0][0].weight)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"freeze": True}, r"r\.yaml: freeze: needs `init`, .* can be frozen$"),
        ({"freeze": 0.5, "init": "x"}, "freeze"),
        ({"init": "nobody"}, "no engine named 'nobody'"),
        ({"init": "run/checkpoint.pt"}, r"init: there is no .*run/checkpoint\.pt"),
    ],
)
def test_a_faulty_start_is_refused_by_naming_the_field(
    folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        train(write(tmp_path / "r.yaml", folder, **changes), out=tmp_path / "run")


def test_weights_that_cannot_be_read_or_do_not_fit_are_refused_with_their_path(tmp_path: Path) -> None:
    model, base = build("edge", 3), tmp_path
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    torch.save({"weights": {"conv.weight": torch.zeros(3)}, "classes": list(CLASSES)}, tmp_path / "foreign.pt")
    torch.save({"something": 1}, tmp_path / "else.pt")
    for init, named in (
        ("text.pt", r"init: .*text\.pt cannot be read"),
        ("else.pt", r"init: .*else\.pt cannot be read: .*`streamseg engine import` makes an engine of it"),
        ("foreign.pt", r"init: no weight of .*foreign\.pt fits"),
        ("empty", r"init: .*empty has no weights\.pt"),
    ):
        with pytest.raises(ConfigError, match=named):
            weights.initialise(model, "edge", CLASSES, init, base)
