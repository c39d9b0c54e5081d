"""Labelled folders as others publish them: every layout and style drawn to disk, read with the recipe's classes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapes import palette

from streamseg.errors import ConfigError
from streamseg.training.classmap import class_map
from streamseg.training.data import Pictures
from streamseg.training.datasets import load
from streamseg.training.kinds import Folders
from streamseg.training.styles import STYLES

STREET = ("road", "pavement", "person", "car", "sky")
REPOSITORY = Path(__file__).parents[1]


def picture(path: Path, width: int = 4, height: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def grey(path: Path, values: list[list[int]], dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(values, dtype))


def coloured(path: Path, values: list[list[tuple[int, int, int]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(values, np.uint8)[..., ::-1])


def read(root: Path, ours: tuple[str, ...] = STREET, splits: tuple[str, ...] = ("train",), **said: Any) -> Pictures:
    source = Folders(kind="folders", root=root, splits=splits, **said)
    return load(source, ours, None, root)


def test_cityscapes_as_downloaded(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "ulm")):
        name = f"{city}_000000_000019"
        picture(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
        folder = tmp_path / "gtFine" / split / city
        grey(folder / f"{name}_gtFine_labelIds.png", [[7, 8, 24, 25], [26, 23, 0, 4]])
        grey(folder / f"{name}_gtFine_instanceIds.png", [[7, 8, 24000, 25000], [26000, 23, 0, 4]], np.uint16)
    said = {"class_map": "cityscapes", "map": {"sidewalk": "pavement", "human": "person"}}
    got = read(tmp_path, **said)
    assert len(got) == 2
    np.testing.assert_array_equal(got.labels[1], [[0, 1, 2, 2], [3, 4, 255, 255]])
    assert len(read(tmp_path, splits=("train", "val"), **said)) == 3


def test_camvids_colours_as_first_published_and_its_packed_ids_mean_the_same(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "701_StillsRaw_full" / "0001TP_1.png", 5, 1)
    picture(tmp_path / "a" / "701_StillsRaw_full" / "0001TP_2.png", 5, 1)
    road, lane, suv, child, void = (128, 64, 128), (128, 0, 192), (64, 128, 192), (192, 128, 64), (0, 0, 0)
    coloured(tmp_path / "a" / "LabeledApproved_full" / "0001TP_1_L.png", [[road, lane, suv, child, void]])
    (tmp_path / "a" / "train.txt").write_text("/SegNet/CamVid/train/0001TP_1.png /SegNet/CamVid/trainannot/x.png\n")
    picture(tmp_path / "b" / "train" / "1.png", 5, 1)
    coloured(tmp_path / "b" / "train_labels" / "1_L.png", [[road, lane, suv, child, void]])
    picture(tmp_path / "c" / "train" / "1.png", 5, 1)
    grey(tmp_path / "c" / "trainannot" / "1.png", [[3, 3, 8, 9, 11]])
    for one in "abc":
        got = read(tmp_path / one, ("road", "car", "rest"), class_map="camvid", others="rest")
        assert len(got) == 1
        np.testing.assert_array_equal(got.labels[0], [[0, 0, 1, 2, 255]])


def test_coco_stuff_takes_the_pixel_for_the_id(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train2017" / "000000000009.jpg")
    grey(tmp_path / "annotations" / "train2017" / "000000000009.png", [[0, 2, 148, 255], [0, 139, 5, 7]])
    said = {"class_map": "coco-stuff", "map": {"bus": "car", "truck": None, "person": "road"}, "others": "sky"}
    got = read(tmp_path, splits=("train2017",), **said)
    np.testing.assert_array_equal(got.labels[0], [[0, 3, 0, 255], [0, 1, 3, 255]])


@pytest.mark.parametrize("bits", [4, 8])
def test_vocs_palettes_are_read_by_index_though_colours_repeat(tmp_path: Path, bits: int) -> None:
    picture(tmp_path / "JPEGImages" / "2007_1.jpg", 5, 1)
    picture(tmp_path / "JPEGImages" / "2007_2.jpg", 5, 1)
    border = 255 if bits == 8 else 14
    colours = [(i % 3, 0, 0) for i in range(1 << bits)]
    palette(tmp_path / "SegmentationClass" / "2007_1.png", [[0, 7, 15, border, 3]], colours, bits)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_1\n")
    said = {"class_map": "voc", "map": {"motorbike": None}, "others": "sky"}
    got = read(tmp_path, **said)
    np.testing.assert_array_equal(got.labels[0], [[4, 3, 2, 255, 4]])


def test_folders_of_ones_own_with_a_file_of_colours(tmp_path: Path) -> None:
    picture(tmp_path / "cam1" / "day" / "shop.jpeg")
    coloured(tmp_path / "masks" / "day" / "shop_mask.png", [[(9, 9, 9)] * 4, [(1, 2, 3)] * 4])
    (tmp_path / "shop.csv").write_text("r,g,b,name\n9,9,9,person  # anybody\n1,2,3,-\n")
    said = {"images": "cam1", "labels": "masks", "suffix": ("", "_mask")}
    got = read(tmp_path, **said, class_map="shop.csv")
    np.testing.assert_array_equal(got.labels[0], [[2] * 4, [255] * 4])
    assert len(read(tmp_path, class_map="shop.csv", **(said | {"images": "cam1/*/sh*.jpeg"}))) == 1


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_labels_may_lie_beside_their_pictures_and_are_none(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "all" / "a.jpeg")
    grey(tmp_path / "all" / f"a{suffix}.png", [[1] * 4] * 2)
    got = read(tmp_path, images="all", labels="all", suffix=("", suffix))
    np.testing.assert_array_equal(got.labels, [[[1] * 4] * 2])


def test_a_file_may_build_on_a_style_by_names_values_and_groups(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(
        "style: cityscapes\nmap: {human: person, rider: car, 20: sky, terrain: null}\nothers: pavement\n"
    )
    made = class_map("map.yaml", STREET, tmp_path)
    labels, unknown = made.apply(np.array([[24, 25, 20, 22, 21, 7, 0, 255]], np.uint8))
    np.testing.assert_array_equal(labels, [[2, 3, 4, 255, 1, 0, 255, 255]])
    assert not unknown


def test_wide_greys_are_told_apart(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png")
    grey(tmp_path / "trainannot" / "a.png", [[1000, 1001, 7, 255]] * 2, np.uint16)
    (tmp_path / "map.txt").write_text("1000 road\n1001: car\n7; sky\n")
    np.testing.assert_array_equal(read(tmp_path, class_map="map.txt").labels[0], [[0, 3, 4, 255]] * 2)


def test_values_that_nobody_named_are_ignored_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        picture(tmp_path / "train" / f"{name}.png")
        grey(tmp_path / "trainannot" / f"{name}.png", [[7, 7, 90, 91]] * 2)
    (tmp_path / "map.csv").write_text("7, road\n")
    with caplog.at_level(logging.WARNING, "streamseg"):
        got = read(tmp_path, class_map="map.csv")
    np.testing.assert_array_equal(got.labels[0], [[0, 0, 255, 255]] * 2)
    (told,) = caplog.messages
    assert "50 % of the pixels are ignored" in told
    assert "90 (4 pixels), 91 (4 pixels)" in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "m.yaml",
            "style: citiscapes",
            r"style 'citiscapes' is unknown; there is: cityscapes, camvid, coco-stuff, voc",
        ),
        ("m.yaml", "map: {7: raod}", r"'raod' is no class of the recipe; it has road, pavement"),
        ("m.yaml", "map: {7: road}\nothers: rest", r"'rest' is no class of the recipe"),
        ("m.yaml", "map: {street: road}", r"'street' is no label value; names need a `style`"),
        ("m.yaml", "style: voc\nmap: {lorry: car}", r"the style has no 'lorry'; it has background, aeroplane"),
        ("m.yaml", "mapping: {}", r"must hold some of: style, map, others"),
        ("m.yaml", "map: [7, road]", r"map must say `value or name: class`"),
        ("m.yaml", "map: {", r"is not YAML"),
        ("m.yaml", "map:\n  7: road\n  7: pavement", r"7 is given twice"),
        ("m.yaml", "style: [voc]", r"style must be a name, not \['voc'\]"),
        ("m.yaml", "map: {7: road}\nothers: [road]", r"others must be a name, not"),
        ("m.csv", "id,name\n7,road,x", r"line 2: '7,road,x' is not a value \(or three\) and a class"),
        ("m.csv", "7 8,road", r"line 1: .* is not a value"),
        ("m.csv", "300,0,0,road", r"line 1: .* is not a value"),
        ("m.csv", "# nothing", r"names no value"),
    ],
)
def test_a_faulty_map_is_refused_by_what_is_wrong(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=told):
        class_map(name, STREET, tmp_path)


def test_no_such_map_and_a_style_without_one_of_our_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: no such file, and no style \(cityscapes, camvid"):
        class_map("none.csv", STREET, tmp_path)
    with pytest.raises(ConfigError, match=r"class map voc: names no class of the recipe \(weed, crop\)"):
        class_map("voc", ("weed", "crop"), tmp_path)


def test_pictures_and_maps_that_do_not_fit_are_refused_by_file(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png")
    grey(tmp_path / "trainannot" / "a.png", [[1] * 4] * 2)
    (tmp_path / "colours.csv").write_text("1,2,3,road")
    with pytest.raises(ConfigError, match=r"trainannot/a\.png holds grey or palette values, of which .*colours\.csv"):
        read(tmp_path, class_map="colours.csv")
    grey(tmp_path / "trainannot" / "a.png", [[1] * 3] * 2)
    with pytest.raises(ConfigError, match=r"trainannot/a\.png must hold one class id a pixel, 4x2 as its picture"):
        read(tmp_path, class_map="camvid")
    (tmp_path / "trainannot" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"trainannot/a\.png: not a picture that can be read"):
        read(tmp_path, class_map="camvid")
    with pytest.raises(ConfigError, match=r"no labelled pictures in .*leftImg8bit/train"):
        read(tmp_path, class_map="cityscapes")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"class_map": "voc", "classes": ("a",)}, "leave one out"),
        ({"images": "x"}, "images and labels belong together"),
        ({"names": "x.txt"}, "need images and labels"),
    ],
)
def test_a_layout_said_by_half_or_twice_is_refused(tmp_path: Path, said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(tmp_path, **said)


def test_the_styles_count_what_was_published() -> None:
    assert {name: len(style.values) for name, style in STYLES.items()} == {
        "cityscapes": 34,
        "camvid": 12 + 32,
        "coco-stuff": 182,
        "voc": 21,
    }
    assert STYLES["coco-stuff"].values[181] == ("wood",)
    assert STYLES["cityscapes"].values[33] == ("bicycle", "vehicle")


@pytest.mark.shared
def test_the_packed_camvid_gives_the_same_labels_with_and_without_its_style() -> None:
    eleven = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    root = REPOSITORY.parent / "shared" / "data" / "camvid"
    plain, styled = read(root, eleven, ("test",)), read(root, eleven, ("test",), class_map="camvid")
    assert len(plain) == len(styled) == 233
    for one, other in zip(plain.labels, styled.labels, strict=True):
        np.testing.assert_array_equal(one, other)
