"""`streamseg engine import` of PyTorch checkpoints: verified weight by weight, and nothing in them is executed."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from bringing import Bring, answer, left_alone
from foreign_models import picture

from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError
from streamseg.evaluation.accuracy import Confusion
from streamseg.importing import checkpoint
from streamseg.models import build


def saved(folder: Path, architecture: str, classes: int = 5, **wrap: Any) -> Path:
    torch.manual_seed(0)
    weights = build(architecture, classes).state_dict()
    path = folder / f"{architecture}.pth"
    torch.save(wrap.get("wrap", lambda w: w)(weights), path)
    return path


# One of each stride of the logits: 1, 2, 4 and 8; the last with pixels normalised in its own way. That every other one
# answers the same when it is exported is tested with the architectures.
@pytest.mark.parametrize("architecture", ["unet", "street", "edge", "bisenetv2"])
def test_a_saved_network_comes_back_as_an_engine(architecture: str, bring: Bring, tmp_path: Path) -> None:
    path = saved(tmp_path, architecture)
    bundle = bring(path, "--architecture", architecture, "--classes", "a,b,c,d,e", "--size", "160x96")
    torch.manual_seed(0)
    model = build(architecture, 5).eval()
    count = len(model.state_dict())
    assert re.search(rf"{count} of {count} tensors .*\n *missing: +none\n *unused: +none", bring.output), bring.output
    rgb = picture()
    entry = bundle.manifest.input
    x = (rgb / 255.0 - np.array(entry.mean)) / np.array(entry.std)
    with torch.inference_mode():
        logits = model(torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32)))
        scores = torch.nn.functional.interpolate(logits.softmax(1), rgb.shape[:2], mode="bilinear")
    assert (answer(bundle, rgb) == scores[0].argmax(0).numpy()).mean() > 0.99
    assert (bundle.path / "weights.pt").is_file()  # what a recipe's `init` starts from
    assert bundle.manifest.parameters
    assert bundle.manifest.gmac


def test_a_checkpoint_that_takes_blue_first_is_given_it_so(bring: Bring, tmp_path: Path) -> None:
    path = saved(tmp_path, "edge")
    options = ("--architecture", "edge", "--classes", "a,b,c,d,e", "--size", "160x96", "--mean", "0.5", "--std", "0.25")
    plain = bring(path, *options)
    swapped = bring(path, *options, "--bgr", name="swapped")
    rgb = picture()
    np.testing.assert_array_equal(answer(swapped, rgb), answer(plain, np.ascontiguousarray(rgb[..., ::-1])))
    assert (answer(swapped, rgb) != answer(plain, rgb)).any()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": {f"module.{n}": v for n, v in w.items()}, "epoch": 3},
        lambda w: {"model": {f"model.{n}": v for n, v in w.items()}},
        lambda w: {"state_dict": {**{f"model.{n}": v for n, v in w.items()}, "loss.weight": torch.ones(5)}},
    ],
    ids=["data-parallel", "model", "with-its-loss"],
)
def test_wrapped_checkpoints_are_unwrapped(wrap: Any, tmp_path: Path) -> None:
    loaded = checkpoint.load(saved(tmp_path, "edge", wrap=wrap), "edge", 5)
    torch.manual_seed(0)
    theirs = loaded.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in build("edge", 5).state_dict().items())


def test_of_our_own_checkpoint_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    def kept(last: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"place": {}, "model": last, "average": {n: torch.zeros_like(value) for n, value in last.items()}}

    loaded = checkpoint.load(saved(tmp_path, "edge", wrap=kept), "edge", 5)
    assert not any(value.any() for value in loaded.model.state_dict().values())


def test_missing_auxiliary_heads_are_named_and_forgiven(bring: Bring, tmp_path: Path) -> None:
    wrap = lambda w: {n: v for n, v in w.items() if not n.startswith("aux")} | {"aux99.weight": torch.ones(1)}  # noqa: E731
    path = saved(tmp_path, "edge", wrap=wrap)
    bring(path, "--architecture", "edge", "--classes", "a,b,c,d,e", "--size", "160x96")
    told = bring.output
    assert "missing:   aux16.0.0.weight" in told
    assert "unused:    aux99.weight" in told


def test_a_checkpoint_of_another_network_is_refused_by_name_and_shape(bring: Bring, tmp_path: Path) -> None:
    path = saved(tmp_path, "edge", classes=7)
    with pytest.raises(EngineError, match=r"tells 7 classes apart; \d+ have another shape: head\.weight is \[7, "):
        bring(path, "--architecture", "edge", "--classes", "a,b,c,d,e")
    missing = saved(tmp_path, "edge", wrap=lambda w: {n: v for n, v in w.items() if not n.startswith("stem")})
    with pytest.raises(EngineError, match=r"\d+ weights are missing: stem\.0\.0\.weight, .* and \d+ more"):
        bring(missing, "--architecture", "edge", "--classes", "a,b,c,d,e")
    with pytest.raises(EngineError, match="is not of espnetv2"):
        bring(missing, "--architecture", "espnetv2", "--classes", "a,b,c,d,e")
    with pytest.raises(ConfigError, match="architecture 'other' is unknown"):
        bring(missing, "--architecture", "other", "--classes", "a,b,c,d,e")
    with pytest.raises(ConfigError, match="--architecture"):
        bring(missing, "--classes", "a,b,c,d,e")
    left_alone(tmp_path)


class Malicious:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, "edge", wrap=lambda w: w | {"stem.0.0.weight": w["stem.0.0.weight"] * float("nan")})
    with pytest.raises(EngineError, match=r"not all numbers are finite in stem\.0\.0\.weight$"):
        checkpoint.load(path, "edge", 5)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (torch.save, r"\(\w+\.mkdir\)"),
        (lambda thing, path: path.write_bytes(pickle.dumps(thing)), r"\(Unsupported .*\)"),
    ],
)
def test_a_pickle_with_code_inside_is_refused_and_executes_nothing(
    how: Any, named: str, bring: Bring, tmp_path: Path
) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "executed"
    how({"state_dict": {"weight": Malicious(mark)}}, path)
    with pytest.raises(EngineError, match=rf"more than weights {named} and was not loaded: it could execute code"):
        bring(path, "--architecture", "edge", "--classes", "a,b,c,d,e")
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 10, 5000, -100])
def test_a_cut_checkpoint_is_told(keep: int, bring: Bring, tmp_path: Path) -> None:
    path = saved(tmp_path, "edge")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EngineError, match="is no PyTorch checkpoint"):
        bring(path, "--architecture", "edge", "--classes", "a,b,c,d,e")
    left_alone(tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "classes"), [("pascal_384x384", "voc"), ("city_1024x512", "cityscapes+background")])
def test_published_espnetv2_checkpoints_load_key_by_key(
    name: str, classes: str, bring: Bring, shared_data: Path
) -> None:
    path = shared_data / f"models/espnetv2_s_2.0_{name}.pth"
    clip = str(shared_data / "clips/pedestrians-360p.mp4")
    bring(path, "--architecture", "espnetv2", "--classes", classes, "--size", "480x272", "--picture", clip)
    told = bring.output
    assert "526 of 526 tensors" in told
    assert "missing:   none" in told
    assert "person" in told


@pytest.mark.shared
def test_the_published_espnet_is_as_accurate_on_camvid_as_was_measured(bring: Bring, shared_data: Path) -> None:
    """57.2 mIoU on the test split, of all pictures; every sixth here. Its pixels are BGR, normalised, over 255."""
    path = shared_data / "models/espnet_p_2_q_8_camvid.pth"
    names = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist,unlabelled"
    pixels = ("--bgr", "--mean", "110.257,108.362,104.991", "--std", "18376,18526,17813")
    bundle = bring(path, "--architecture", "espnet", "--classes", names, "--size", "480x360", *pixels)
    program = Engine(bundle, smoothing="off", precision="fp32", size=(480, 360)).program((480, 360))
    seen = Confusion(12)
    for still in sorted((shared_data / "camvid/test").iterdir())[::6]:
        truth = cv2.imread(str(shared_data / "camvid/testannot" / f"{still.stem}.png"), cv2.IMREAD_UNCHANGED)
        rgb = np.ascontiguousarray(cv2.imread(str(still))[..., ::-1])
        labels = program.run([rgb], [program.new_state()], [-1.0])[0]()
        seen.add(labels, np.where(truth < 11, truth, 255).astype(np.uint8))
    assert seen.iou()[:11].mean() > 0.55
