"""A run that went wrong, was cut off or has ended: what is kept of it, and what the next one says."""

from __future__ import annotations

import csv
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from shapes import labelled, write
from torch import nn

from streamseg.errors import ConfigError, EngineError
from streamseg.training import checkpoint, lock, train

PLACE = checkpoint.Place(epoch=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shapes").mkdir()
    return labelled(tmp_path / "shapes")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of one epoch left; for `run`."""
    root = tmp_path_factory.mktemp("trained")
    train(write(root / "r.yaml", labelled(root), epochs=1, report=None), out=root / "run", threads=1)
    return root / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one epoch, to go on from."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_weights_that_are_no_longer_finite_are_told_and_not_kept(folder: Path, run: Path, tmp_path: Path) -> None:
    before = (run / "checkpoint.pt").read_bytes()
    recipe = write(tmp_path / "r.yaml", folder, epochs=3, report=None, learning_rate=1e30)
    with pytest.raises(EngineError, match=r"no longer finite: try a lower learning_rate; .*checkpoint\.pt is from bef"):
        train(recipe, out=run, resume=True, threads=1)
    assert (run / "checkpoint.pt").read_bytes() == before


def test_a_full_disk_keeps_the_checkpoint_before_it_and_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    checkpoint.save(file, PLACE, ["a"], model=nn.Linear(4, 4))
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # Python ignores the signal and gets EFBIG, as ENOSPC
    try:
        with pytest.raises(OSError, match="checkpoint") as told:
            checkpoint.save(file, PLACE, ["a"], model=nn.Linear(400, 400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.filename == str(file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == [file.name]


def test_a_run_that_has_ended_or_goes_on_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path / "r.yaml", folder, report=None)
    train(recipe, out=tmp_path / "run", threads=1)
    assert "checkpoint.pt" not in capsys.readouterr().out
    train(recipe, out=tmp_path / "run", resume=True, threads=1)
    ended = capsys.readouterr().out
    assert "checkpoint.pt is of a run that has ended: nothing is left to train; start anew with --no-resume" in ended
    train(recipe, out=tmp_path / "run", resume=True, epochs=3, threads=1)
    assert "checkpoint.pt, in epoch 2 of 3" in capsys.readouterr().out


def test_a_decay_that_was_changed_since_is_taken(folder: Path, run: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, epochs=2, report=None, weight_decay=0.5)
    train(recipe, out=run, resume=True, threads=1)
    kept = torch.load(run / "checkpoint.pt", weights_only=True)["optimiser"]
    assert [group["weight_decay"] for group in kept["param_groups"]] == [0.5, 0]


def test_epochs_that_a_crash_lost_are_not_logged_twice(folder: Path, run: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.yaml", folder, report=None)
    with (run / "log.csv").open("a") as table, (run / "log.jsonl").open("a") as lines:
        table.write("2,9.0,0.1,7,\n")
        lines.write('{"epoch": 2, "loss": 9.0}\n{"epo')
    train(recipe, out=run, epochs=2, resume=True, threads=1)
    with (run / "log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert "9.0" not in (run / "log.jsonl").read_text()
    assert len((run / "log.jsonl").read_text().splitlines()) == 2


def test_a_second_training_in_the_same_folder_is_refused_while_the_first_is_at_work(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path / "r.yaml", folder, epochs=1, report=None)
    with lock.held(run), pytest.raises(ConfigError, match=r"another training is at work in .*run; .*--work"):
        train(recipe, out=run, resume=True, threads=1)
    train(recipe, out=run, resume=True, threads=1)


def test_a_start_that_leaves_nothing_to_train_is_refused(folder: Path, run: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "r.yaml", folder, report=None, init="run/checkpoint.pt", freeze=True)
    with pytest.raises(ConfigError, match=r"freeze: nothing is left to train, as run/checkpoint\.pt has every weight"):
        train(again, out=tmp_path / "again", threads=1)
