"""`streamseg bench engine`: accuracy beside speed, in Markdown and as a plot, of engines made here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_engine as tiny
from typer.testing import CliRunner

from streamseg.bench import engine as bench
from streamseg.bench import plot, told
from streamseg.bench.plot import Point
from streamseg.cli import app
from streamseg.engine.bundle import INT8, Bundle, Int8Entry, rewrite, write_int8
from streamseg.errors import ConfigError


def made(folder: Path, name: str, **facts: Any) -> Bundle:
    bundle = tiny.write(folder, name, smoothing="off")
    return rewrite(bundle, bundle.manifest.model_copy(update=facts))


def accurate(miou: float, of: str = "our street") -> dict[str, Any]:
    return {"accuracy": {"miou": miou, "data": of}}


def benched(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["bench", "engine", *map(str, arguments), "--runs", "2", "--size", "160x96"])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_the_accuracy_stands_beside_the_speed_and_threads_side_by_side(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, "ours", **accurate(0.6)), made(tmp_path, "theirs", origin="published")
    printed = benched(ours.path, theirs.path, "--precision", "fp32,bf16", "--threads", "1,2", "--markdown")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    assert cells[0][-4:] == ["backend", "precision", "ms, 1 thread", "ms, 2 threads"]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    assert [(row["engine"], row["precision"]) for row in rows] == [
        ("ours", "fp32"),
        ("ours", "bf16"),
        ("theirs (published)", "fp32"),
        ("theirs (published)", "bf16"),
    ]
    assert [row["mIoU %"] for row in rows] == ["60.0", "60.0", "-", "-"]
    assert {row["of"] for row in rows[:2]} == {"our street"}
    assert all(float(row[column]) >= 0 for row in rows for column in ("ms, 1 thread", "ms, 2 threads"))
    assert "median of 2 runs" in printed.splitlines()[-1]


def test_int8_has_an_accuracy_of_its_own(tmp_path: Path) -> None:
    bundle = made(tmp_path, "ours", **accurate(0.6))
    unmeasured = write_int8(bundle, bundle.program, Int8Entry(of=bundle.digest, agreement=0.99))
    assert bench.told_of(unmeasured, "int8")["miou"] is None
    measured = write_int8(bundle, bundle.program, Int8Entry(of=bundle.digest, agreement=0.99, loss=0.7))
    assert bench.told_of(measured, "int8")["miou"] == pytest.approx(0.593)
    assert bench.told_of(measured, "bf16")["miou"] == 0.6
    assert bench.told_of(measured, "int8")["bytes"] == (measured.path / INT8).stat().st_size


def test_what_one_engine_cannot_do_is_told_and_the_others_are_measured(tmp_path: Path) -> None:
    bundle = made(tmp_path, "ours")
    report = json.loads(benched(bundle.path, "--precision", "int8,fp32", "--json").splitlines()[-1])
    assert [row["precision"] for row in report["results"]] == ["fp32"]
    (why,) = report["failed"].values()
    assert INT8 in why
    done = CliRunner().invoke(app, ["bench", "engine", str(bundle.path), "--precision", "int8"])
    assert INT8 in str(done.exception)
    slip = CliRunner().invoke(app, ["bench", "engine", str(bundle.path), "--backend", "auto,openvinno"])
    assert isinstance(slip.exception, ConfigError)
    assert "--backend: 'openvinno' is none of auto, openvino" in str(slip.exception)


def discs(picture: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Middles of the discs and squares of that colour above the legend."""
    mask = (picture[: plot.BOTTOM] == colour).all(2).astype(np.uint8)
    _, _, boxes, middles = cv2.connectedComponentsWithStats(mask)
    return [(round(x), round(y)) for (x, y), box in zip(middles, boxes, strict=True) if 100 < box[4] < 400]


def test_the_plot_has_a_disc_for_each_engine_of_ours_and_a_diamond_for_the_others() -> None:
    found = [
        Point("fast", "bf16", 5, 60, "street", False),
        Point("exact", "bf16", 20, 70, "street", False),
        Point("other", "bf16", 10, 65, "yard", False),
        Point("theirs", "bf16", 40, 66, "street", True),
    ]
    picture = plot.draw(found, "")
    (fast, exact), (other,) = sorted(discs(picture, plot.COLOURS[0])), discs(picture, plot.COLOURS[1])
    assert fast[0] < other[0] < exact[0]
    assert fast[1] > other[1] > exact[1]
    # Twice the time is the same way to the right, wherever it begins.
    assert abs((other[0] - fast[0]) - (exact[0] - other[0])) <= 2
    all_ours = plot.draw([*found[:3], Point("theirs", "bf16", 40, 66, "street", False)], "")
    assert len(discs(all_ours, plot.COLOURS[0])) == 3


@pytest.mark.parametrize("count", [1, 2, 12])
def test_labels_do_not_cover_each_other(count: int) -> None:
    taken: list[tuple[int, int, int, int]] = []
    canvas = np.full((plot.HEIGHT, plot.WIDTH, 3), 255, np.uint8)
    for number in range(count):
        plot.label(canvas, f"engine-{number} bf16", (250 + 70 * (number % 4), 160 + 70 * (number // 4)), taken)
    assert len(taken) == count
    for i, a in enumerate(taken):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken[:i])


def test_the_plot_shows_measured_accuracies_at_the_fewest_threads(tmp_path: Path) -> None:
    ours, theirs = made(tmp_path, "ours", **accurate(0.6)), made(tmp_path, "theirs", **accurate(0.7))
    unknown = made(tmp_path, "unknown")
    plan = bench.Plan(
        (str(ours.path), str(theirs.path), str(unknown.path)),
        threads=(2, 1),
        size=(160, 96),
        runs=2,
        published=(str(theirs.path),),
    )
    report = bench.run(plan, lambda _: None)
    points = {point.name: point for point in plot.points(report)}
    assert set(points) == {"ours", "theirs"}
    assert (points["ours"].published, points["theirs"].published) == (False, True)
    assert points["ours"].miou == pytest.approx(60)
    single = next(row for row in report["results"] if row["name"] == "ours" and row["threads"] == 1)
    assert points["ours"].ms == single["median_ms"]
    (of_four,) = plot.points({"results": [single | {"batch": 4, "median_ms": 8.0}]})
    assert (of_four.ms, of_four.detail.endswith("4 at once")) == (2.0, True)
    plot.write_plot(tmp_path / "plot.png", report)
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    assert len(told.table(report)) == 6


def test_without_any_accuracy_there_is_nothing_to_plot(tmp_path: Path) -> None:
    command = ["bench", "engine", str(made(tmp_path, "ours").path), "--size", "160x96", "--runs", "1"]
    done = CliRunner().invoke(app, [*command, "--plot", str(tmp_path / "plot.png")])
    assert "--record" in str(done.exception)
    assert re.search(r"^ours +openvino ", done.stdout, re.MULTILINE), "what was measured is told all the same"
    for name, words in (("plot.txt", "a picture's name"), ("nowhere/plot.png", "no folder")):
        done = CliRunner().invoke(app, ["bench", "engine", "--plot", str(tmp_path / name)])
        assert words in str(done.exception)
