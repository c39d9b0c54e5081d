"""`streamseg engine import`: what other people publish becomes an engine that answers what the model itself answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from bringing import Bring, answer, left_alone
from foreign_models import HEIGHT, WIDTH, Foreign, picture
from onnx import TensorProto, helper, numpy_helper

from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError
from streamseg.importing import classes

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CAFFE = {"mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)}
SIGNED = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def own(foreign: Foreign, rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the model says through ONNX Runtime, as labels of the picture's size. Scores are made probabilities before
    they are brought to that size, as in every engine; labels, which have none, are repeated."""
    import onnxruntime

    session = onnxruntime.InferenceSession(foreign.model().SerializeToString(), providers=["CPUExecutionProvider"])
    x = rgb[..., ::-1] if foreign.bgr else rgb
    if foreign.kind != "u8":
        x = (x - np.array(foreign.mean)) / np.array(foreign.std)
    x = x if foreign.layout == "nhwc" else x.transpose(2, 0, 1)
    dtype = {"u8": np.uint8, "f16": np.float16, "f32": np.float32}[foreign.kind]
    given = session.get_inputs()[0].name
    (value,) = session.run(["answer"], {given: np.ascontiguousarray(x[None]).astype(dtype)})
    size = (rgb.shape[1], rgb.shape[0])
    if foreign.answer.partition("-")[0] in ("argmax", "hidden"):
        return cv2.resize(np.squeeze(value).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    planes = value[0] if foreign.answer_layout == "nchw" else value[0].transpose(2, 0, 1)
    if foreign.answer == "sigmoid":
        planes = np.log(planes / (1 - planes))
    if foreign.answer != "softmax":
        planes = np.exp(planes - planes.max(0)) / np.exp(planes - planes.max(0)).sum(0)
    return np.stack([cv2.resize(np.ascontiguousarray(p), size) for p in planes]).argmax(0)


VARIANTS = {
    "nchw": Foreign(),
    "nhwc": Foreign(layout="nhwc"),
    "bytes": Foreign(layout="nhwc", kind="u8", **RAW),
    "bytes-nchw": Foreign(kind="u8", **RAW),
    "half-precision": Foreign(kind="f16"),
    "imagenet": Foreign(**IMAGENET),
    "caffe-bgr": Foreign(bgr=True, **CAFFE),
    "signed": Foreign(**SIGNED),
    "raw-floats": Foreign(**RAW),
    "nhwc-out": Foreign(layout="nhwc", answer_layout="nhwc"),
    "softmax": Foreign(answer="softmax"),
    "softmax-nhwc": Foreign(answer="softmax", answer_layout="nhwc"),
    "sigmoid": Foreign(answer="sigmoid"),
    "argmax": Foreign(answer="argmax"),
    "argmax-nhwc": Foreign(answer="argmax", answer_layout="nhwc"),
    "argmax-int32": Foreign(answer="argmax-i32"),
    "argmax-bytes": Foreign(answer="argmax-u8"),
    "argmax-floats": Foreign(answer="argmax-f32"),
    "labels-only": Foreign(answer="hidden", stride=1),
    "labels-only-4d": Foreign(answer="hidden-4d", stride=1),
    "labels-only-nhwc": Foreign(answer="hidden-4d", answer_layout="nhwc", stride=1),
    "stride-1": Foreign(stride=1),
    "stride-8": Foreign(stride=8),
    "stride-16": Foreign(stride=16, size=(160, 96)),
    "upsampled": Foreign(stride=4, resize="half_pixel", answer="argmax"),
    "upsampled-corners": Foreign(stride=4, resize="align_corners", answer="argmax"),
    "upsampled-asymmetric": Foreign(stride=4, resize="asymmetric"),
    "upsampled-softmax-nhwc": Foreign(stride=8, resize="half_pixel", answer="softmax", answer_layout="nhwc"),
    "any-size": Foreign(size=None),
    "opset-11": Foreign(opset=11, answer="argmax"),
    "opset-12-resize": Foreign(opset=12, resize="align_corners"),
    "opset-11-softmax": Foreign(opset=11, answer="softmax", resize="half_pixel"),
    "two-outputs": Foreign(second=True),
}


@pytest.mark.parametrize("foreign", VARIANTS.values(), ids=VARIANTS)
def test_an_imported_model_answers_what_it_answers_by_itself(foreign: Foreign, bring: Bring, tmp_path: Path) -> None:
    bundle = bring(foreign.write(tmp_path), *foreign.options)
    rgb = picture(1)  # another one than it was brought in with
    mine, theirs = answer(bundle, rgb), own(foreign, rgb)
    assert mine.shape == (HEIGHT, WIDTH)
    assert (mine == theirs).mean() > (0.94 if foreign.coarse else 0.995)
    assert len(np.unique(theirs)) == 4
    assert (bundle.path / "proof.jpg").stat().st_size > 1000
    assert (bundle.path / "README.md").is_file()


def test_old_softmaxes_and_upsamplings_are_seen_through(bring: Bring, tmp_path: Path) -> None:
    foreign = Foreign(opset=11, answer="softmax", resize="align_corners")
    bring(foreign.write(tmp_path), *foreign.options)
    assert "the logits before its softmax; the 24x40 scores before its upsampling" in bring.output


def test_strides_that_are_not_whole_work_with_smoothing(bring: Bring, tmp_path: Path) -> None:
    # 161 / 40 and 97 / 24: the pool leaves what does not fill a cell.
    foreign = Foreign(size=(161, 97), stride=4)
    bundle = bring(foreign.write(tmp_path), *foreign.options, "--stretch")
    rgb = cv2.resize(picture(), (161, 97))
    for backend in ("openvino", "onnxruntime"):
        engine = Engine(bundle, backend=backend, smoothing="adaptive", precision="fp32")
        program = engine.program(bundle.fit(1280, 720))
        state = program.new_state()
        for _ in range(3):
            labels = program.run([rgb], [state], [0.1])[0]()
        assert labels.shape == (97, 161)
        assert (labels == answer(bundle, rgb)).mean() > 0.98


def test_openvino_alone_is_enough(bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamseg.importing import running

    monkeypatch.setattr(running, "find_spec", lambda name: None)
    foreign = Foreign(layout="nhwc", kind="u8", answer="argmax", resize="align_corners", **RAW)
    bring(foreign.write(tmp_path), *foreign.options)
    assert "before its argmax; the 24x40 scores" in bring.output


def test_files_of_2018_are_brought_up_to_date(bring: Bring, tmp_path: Path) -> None:
    """Opset 9: Upsample, and every weight an input too."""
    weights = [
        numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * 20, "w"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
    ]
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["pooled", "w"], ["scores"]),
        helper.make_node("Upsample", ["scores", "scales"], ["output"], mode="linear"),
    ]
    sizes = {"input": [1, 3, HEIGHT, WIDTH], "w": [3, 3, 1, 1], "scales": [4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    graph = helper.make_graph(nodes, "old", inputs, [out], weights)
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3), path)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, :53, 0] = rgb[:, 53:107, 1] = rgb[:, 107:, 2] = 200
    labels = answer(bring(path, "--classes", "red,green,blue", "--pixels", "0..1"), rgb)
    assert [int(labels[48, x]) for x in (20, 80, 140)] == [0, 1, 2]


def test_a_model_of_one_size_gets_other_aspects_padded_not_stretched(bring: Bring, tmp_path: Path) -> None:
    foreign = Foreign(size=(160, 160), resize="align_corners", answer="argmax")
    bundle = bring(foreign.write(tmp_path), *foreign.options)
    assert bundle.fit(1280, 720) == (160, 88)
    assert bundle.fit(720, 1280) == (88, 160)
    rgb = picture()[:88]
    padded = np.full((160, 160, 3), 127, np.uint8)
    padded[:88] = rgb
    mine = answer(bundle, rgb)
    assert mine.shape == (88, 160)
    assert (mine == own(foreign, padded)[:88]).mean() > 0.97
    stretched = bring(foreign.write(tmp_path), *foreign.options, "--stretch", name="stretched")
    assert stretched.fit(1280, 720) == (160, 160)


def test_one_channel_of_foreground_becomes_two_classes(bring: Bring, tmp_path: Path) -> None:
    for logit in (True, False):
        nodes = [
            helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["grey", "half"], ["apart"]),
            helper.make_node("Mul", ["apart", "gain"], ["logit" if not logit else "answer"]),
        ]
        if not logit:
            nodes.append(helper.make_node("Sigmoid", ["logit"], ["answer"]))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
        out = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 1, HEIGHT, WIDTH])
        weights = [numpy_helper.from_array(np.float32(v), n) for n, v in (("half", 0.5), ("gain", 30.0))]
        graph = helper.make_graph(nodes, "matting", [image], [out], weights)
        path = tmp_path / f"matting-{logit}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
        bundle = bring(path, "--classes", "background,person", "--pixels", "0..1", name=path.stem)
        rgb = picture()
        assert (answer(bundle, rgb) == (rgb.mean(2) > 127.5)).mean() > 0.985
        assert [c.draw for c in bundle.manifest.classes] == [False, True]


def test_what_was_decided_is_told(bring: Bring, tmp_path: Path) -> None:
    foreign = Foreign(layout="nhwc", kind="u8", answer="argmax", second=True, **RAW)
    bring(foreign.write(tmp_path), *foreign.options)
    told = bring.output
    for word in ("NHWC", "uint8", "0..255", "answer", "auxiliary", "before its argmax", "agreement", "ms a picture"):
        assert word in told, told


def test_another_output_can_be_taken(bring: Bring, tmp_path: Path) -> None:
    foreign = Foreign(second=True)
    bundle = bring(foreign.write(tmp_path), *foreign.options, "--output", "auxiliary")
    assert (answer(bundle, picture()) == own(foreign, picture())).mean() < 0.5
    with pytest.raises(EngineError, match="no tensor of that name; its outputs: answer, auxiliary"):
        bring(foreign.write(tmp_path), *foreign.options, "--output", "nothing", name="other")


def test_a_wrong_number_of_classes_is_told_with_the_right_one(bring: Bring, tmp_path: Path) -> None:
    path = Foreign().write(tmp_path)
    with pytest.raises(EngineError, match="4 classes, and 3 are named"):
        bring(path, "--classes", "a,b,c")
    with pytest.raises(EngineError, match="tells 4 classes apart, and 3 are named"):
        bring(Foreign(answer="argmax").write(tmp_path), "--classes", "a,b,c")
    with pytest.raises(EngineError, match="label 3, and only 3 classes"):
        bring(Foreign(answer="hidden").write(tmp_path), "--classes", "a,b,c", "--pixels", "0..1")
    left_alone(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 300, -20])
def test_a_cut_file_is_told_and_leaves_nothing(keep: int, bring: Bring, tmp_path: Path) -> None:
    path = Foreign().write(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EngineError, match=r"foreign\.onnx (is|keeps)"):
        bring(path, "--classes", "voc")
    left_alone(tmp_path)


@pytest.mark.parametrize("content", [b"not a model at all\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(1000)])
def test_what_is_no_model_is_told(content: bytes, bring: Bring, tmp_path: Path) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"wrong\.onnx is"):
        bring(path, "--classes", "voc")
    left_alone(tmp_path)


def test_weights_in_a_file_of_their_own_are_taken_in_or_missed(bring: Bring, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    big = {"save_as_external_data": True, "location": "split.data", "size_threshold": 0}
    onnx.save(Foreign().model(), path, **big)
    bundle = bring(path, *Foreign().options)
    assert (answer(bundle, picture()) == own(Foreign(), picture())).mean() > 0.995
    (tmp_path / "split.data").unlink()
    with pytest.raises(EngineError, match="keeps its weights in a file that is not beside it"):
        bring(path, *Foreign().options, name="other")


def test_a_model_of_something_else_is_told(bring: Bring, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tabular", [x], [y])
    path = tmp_path / "tabular.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(EngineError, match="2 dimensions; a picture has 4"):
        bring(path, "--classes", "voc")


def test_a_failure_late_in_the_import_leaves_no_half_bundle(
    bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamseg.importing import prove

    monkeypatch.setattr(prove, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(EngineError, match="agrees with the model on"):
        bring(Foreign().write(tmp_path), *Foreign().options)
    left_alone(tmp_path)


def test_an_engine_is_not_overwritten_unasked(bring: Bring, tmp_path: Path) -> None:
    path = Foreign().write(tmp_path)
    before = bring(path, *Foreign().options).digest
    with pytest.raises(ConfigError, match="is there already"):
        bring(path, *Foreign().options)
    other = Foreign(answer="argmax", resize="align_corners")
    after = bring(other.write(tmp_path), *other.options, "--force").digest
    assert after != before
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["brought"]
    with pytest.raises(ConfigError, match="is no engine that could be replaced"):  # whatever it holds would be gone
        bring(path, *Foreign().options, "--out", str(tmp_path), "--force")


def test_an_imported_engine_runs_on_every_cpu_backend(bring: Bring, tmp_path: Path) -> None:
    foreign = Foreign(layout="nhwc", answer="argmax", resize="half_pixel", stride=8)
    bundle = bring(foreign.write(tmp_path), *foreign.options)
    rgb, size, answers = picture(), (WIDTH, HEIGHT), []
    for backend in ("openvino", "onnxruntime"):
        program = Engine(bundle, backend=backend, precision="fp32", smoothing="adaptive").program(size)
        answers.append(program.run([rgb], [program.new_state()], [-1.0])[0]())
    assert (answers[0] == answers[1]).mean() > 0.999


class TestClasses:
    def test_the_known_sets_have_their_published_colours(self) -> None:
        voc = classes.parse("voc")
        assert (len(voc), voc[15].name, voc[15].colour, voc[15].moves) == (21, "person", (192, 128, 128), True)
        assert not voc[0].draw
        assert len(classes.parse("cityscapes")) == 19
        assert classes.parse("cityscapes")[13].colour == (0, 0, 142)
        assert len(classes.parse("camvid")) == 11

    def test_a_list_and_files_give_names_in_order(self, tmp_path: Path) -> None:
        lines = tmp_path / "names.txt"
        lines.write_text("# ours\nbackground\ntraffic light\n\nperson  # moves\n")
        assert [c.name for c in classes.parse(str(lines))] == ["background", "traffic-light", "person"]
        coloured = tmp_path / "names.yaml"
        coloured.write_text(yaml.safe_dump({"classes": ["floor", {"name": "box", "colour": [1, 2, 3], "draw": False}]}))
        assert classes.parse(str(coloured))[1].colour == (1, 2, 3)
        named = classes.parse("a,b,c")
        assert len({c.colour for c in named}) == 3

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [("nothing", "is no file"), ("a,a,b", "a is named twice"), ("a,", "class 1, '': name: String")],
    )
    def test_what_is_no_list_of_classes_is_told(self, wrong: str, told: str) -> None:
        with pytest.raises(ConfigError, match=f"--classes.*{told}"):
            classes.parse(wrong)


@pytest.mark.shared
def test_the_published_deeplab_agrees_with_itself_and_finds_people(bring: Bring, shared_data: Path) -> None:
    shop = str(shared_data / "clips/shop-1080p-hevc.mp4")
    bundle = bring(
        shared_data / "models/deeplabv3_mnv2_voc21_513.onnx", "--classes", "voc", "--picture", shop, "--json"
    )
    import json

    report = json.loads(bring.output)  # type: ignore[attr-defined]
    assert report["proof"]["agreement"] > 0.99
    assert report["proof"]["shares"]["person"] > 0.03
    assert bundle.fit(1920, 1080) == (512, 288)
