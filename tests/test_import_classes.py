"""`engine import --classes FILE`: the lists of names that come with published models, as they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamseg.errors import ConfigError
from streamseg.importing import classes

NAMES = ["background", "traffic light", "person"]
READ = ["background", "traffic-light", "person"]
NUMBERED = dict(enumerate(NAMES))
FILES = {
    "windows.txt": "\r\n".join([*NAMES, ""]).encode(),
    "notepad.txt": b"\xef\xbb\xbf# ours\r\n" + "\r\n".join(NAMES).encode(),
    "data.yaml": f"nc: 3\nnames: {NAMES}\n".encode(),
    "numbered.yaml": b"path: ../x\nnames:\n  0: background\n  1: traffic light\n  2: person\n",
    "config.json": json.dumps({"id2label": {str(i): n for i, n in NUMBERED.items()}, "label2id": {}}).encode(),
    "list.json": json.dumps(NAMES, indent="\t").encode(),
    "coco.json": json.dumps({"categories": [{"id": i, "name": NUMBERED[i], "isthing": 1} for i in (2, 0, 1)]}).encode(),
}


@pytest.mark.parametrize("file", FILES)
def test_names_are_read_as_models_bring_them(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(FILES[file])
    assert [c.name for c in classes.parse(str(path))] == READ


def test_colours_of_coco_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps([{"id": i, "name": n, "color": [i, 2, 3]} for i, n in NUMBERED.items()]))
    assert [c.colour for c in classes.parse(str(path))] == [(0, 2, 3), (1, 2, 3), (2, 2, 3)]


def test_gaps_between_the_numbers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"categories": [{"id": i, "name": f"c{i}"} for i in (1, 2, 4)]}))
    with pytest.raises(ConfigError, match=r"numbers its classes 1, 2, 4…; they must go from 0 without gaps"):
        classes.parse(str(path))


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('{"names": [')
    with pytest.raises(ConfigError, match="cannot be read"):
        classes.parse(str(path))


def test_a_list_may_be_longer_than_the_name_of_a_file() -> None:
    assert len(classes.parse(",".join(f"class-{i}" for i in range(150)))) == 150
