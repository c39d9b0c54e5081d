"""What `--classes` may say: names, a file of names, or the classes of a well-known data set. Passive."""

from __future__ import annotations

import colorsys
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from streamseg.engine.bundle import ClassEntry
from streamseg.errors import ConfigError

_VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor"""
# https://github.com/mcordts/cityscapesScripts (labels.py, by trainId)
_CITYSCAPES = """road:128,64,128 sidewalk:244,35,232 building:70,70,70 wall:102,102,156 fence:190,153,153
    pole:153,153,153 traffic-light:250,170,30 traffic-sign:220,220,0 vegetation:107,142,35 terrain:152,251,152
    sky:70,130,180 person:220,20,60 rider:255,0,0 car:0,0,142 truck:0,0,70 bus:0,60,100 train:0,80,100
    motorcycle:0,0,230 bicycle:119,11,32"""
# The eleven classes that papers report on, in SegNet's order and colours.
_CAMVID = """sky:128,128,128 building:128,0,0 pole:192,192,128 road:128,64,128 pavement:60,40,222 tree:128,128,0
    sign:192,128,128 fence:64,64,128 car:64,0,128 pedestrian:64,64,0 bicyclist:0,128,192"""

KNOWN = ("voc", "cityscapes", "cityscapes+background", "camvid", "person")
_BACKGROUND = frozenset({"background", "unlabeled", "unlabelled", "void", "other", "none", "bg"})
_MOVES = """person people pedestrian human rider bicyclist cyclist motorcyclist bicycle bike motorcycle motorbike car
    bus truck van train tram caravan trailer vehicle dog cat horse cow sheep bird animal"""
_MOVING = frozenset(_MOVES.split())


# COCO's annotations, Ultralytics' data.yaml, transformers' config.json.
_NUMBERED = ("classes", "names", "id2label", "categories")


def parse(text: str) -> tuple[ClassEntry, ...]:
    """The classes in the order of their ids. Raises ConfigError, naming what is wrong.

    `text`: one of `KNOWN`; names with commas between; or a file: a name a line, or YAML or JSON: a list of names, or of
    `{name, colour, draw, moves}`, as in engine.yaml; or what others keep with their models (`_NUMBERED`).
    """
    if text in KNOWN:
        return _known(text)
    given: Sequence[Any]
    file = os.path.isfile(text)  # unlike Path's, it does not raise for a list that is longer than a name may be
    if file:
        given = _of_file(Path(text))
    elif "," in text:
        given = text.split(",")
    else:
        raise ConfigError(f"--classes {text!r} is no file, no list with commas, and none of {', '.join(KNOWN)}")
    entries = _entries(given, where=text if file else "--classes")
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--classes: {', '.join(twice)} is named twice")
    if not 2 <= len(entries) <= 255:
        raise ConfigError(f"--classes: {len(entries)} given; an engine has 2 to 255 (add `background` to a single one)")
    return entries


def _known(name: str) -> tuple[ClassEntry, ...]:
    if name == "voc":
        return tuple(_entry(n, voc_colour(i)) for i, n in enumerate(_VOC.split()))
    if name == "person":
        return (_entry("background", (0, 0, 0)), _entry("person", (220, 20, 60)))
    table = (_CAMVID if name == "camvid" else _CITYSCAPES).split()
    if name == "cityscapes+background":
        table.append("background:0,0,0")
    rows = (row.split(":") for row in table)
    return tuple(_entry(n, tuple(map(int, colour.split(",")))) for n, colour in rows)


def _of_file(path: Path) -> Sequence[Any]:
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() not in (".yaml", ".yml", ".json"):
            return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--classes: {path} cannot be read ({' '.join(str(error).split())})") from None
    if isinstance(content, dict):
        content = next((content[key] for key in _NUMBERED if key in content), content)
    found = _in_order(content, path)
    if not isinstance(found, list):
        raise ConfigError(f"--classes: {path} holds no list of classes, by itself or under {', '.join(_NUMBERED)}")
    return found


def _in_order(content: Any, path: Path) -> Any:
    """A list of classes, of a mapping from ids or of entries that have an `id`; anything else as it is."""
    if isinstance(content, Mapping) and content and all(str(key).isdecimal() for key in content):
        numbered = {int(key): value for key, value in content.items()}
    elif (
        isinstance(content, list)
        and content
        and all(isinstance(c, dict) and isinstance(c.get("id"), int) for c in content)
    ):
        keep = {"name": "name", "color": "colour", "colour": "colour", "draw": "draw", "moves": "moves"}
        numbered = {c["id"]: {keep[key]: value for key, value in c.items() if key in keep} for c in content}
    else:
        return content
    if sorted(numbered) != list(range(len(numbered))):
        ids = ", ".join(map(str, sorted(numbered)[:8]))
        raise ConfigError(
            f"--classes: {path} numbers its classes {ids}…; they must go from 0 without gaps, as in what the model "
            "answers (list those in a file of their own, with the background if it has one)"
        )
    return [numbered[i] for i in range(len(numbered))]


def _entries(given: Sequence[Any], where: str) -> tuple[ClassEntry, ...]:
    colours = generated(len(given))
    entries = []
    for i, one in enumerate(given):
        if not isinstance(one, str | dict) or (isinstance(one, dict) and not isinstance(one.get("name"), str)):
            raise ConfigError(f"{where}: class {i} is {one!r}; a name or {{name: …, colour: [r, g, b]}} is wanted")
        settings = {"name": one} if isinstance(one, str) else dict(one)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", settings.pop("name").strip()).strip("-")
        base = _entry(name or "?", colours[i]).model_dump()
        try:
            entries.append(ClassEntry.model_validate(base | settings))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise ConfigError(f"{where}: class {i}, {one!r}: {place}: {fault['msg']}") from None
    return tuple(entries)


def _entry(name: str, colour: Sequence[int]) -> ClassEntry:
    r, g, b = colour
    lower = name.lower()
    return ClassEntry.model_construct(
        name=name, colour=(r, g, b), draw=lower not in _BACKGROUND, moves=lower in _MOVING
    )


def voc_colour(index: int) -> tuple[int, int, int]:
    """Of PASCAL VOC's published palette: the bits of the index, three at a time, from the most significant down."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


def generated(count: int) -> list[tuple[int, int, int]]:
    """Colours well apart: hues by the golden ratio, so that neighbours in the list differ most."""
    colours = []
    for i in range(count):
        r, g, b = colorsys.hsv_to_rgb(0.61803398875 * i % 1, (0.95, 0.7, 0.5)[i % 3], (1.0, 0.8)[i // 3 % 2])
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return colours
