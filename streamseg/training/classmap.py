"""Class maps: which class of the recipe a value in somebody else's annotation pictures means. No thread, no torch.

A map is a published style (`cityscapes`, `camvid`, `coco-stuff`, `voc`) or a file. A YAML file:

    style: cityscapes         # optional: its names may be used below, and its folder layout is known
    map:
      sidewalk: pavement      # a published name; of the narrowest that is named here, so rider beats human
      human: person
      25: bicyclist           # a label value: grey, or the index of a palette
      "64,128,64": animal     # a label colour, red green blue
      terrain: null           # is ignored
    others: background        # optional: what is not named at all; ignored when left out

or any other text file with a line a value, separated by commas, blanks or colons: `7, road` or `128 64 128 road`; a
class `-` is ignored, a first line of titles and what follows a # are skipped.

A style's name that is a class of the recipe need not be in `map`; its void values and 255 are always ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from streamseg.config import from_yaml
from streamseg.errors import ConfigError
from streamseg.training.augment import IGNORED
from streamseg.training.styles import STYLES, Style, Value
from streamseg.types import U8

UNKNOWN = 254  # in the tables only: no recipe has so many classes


@dataclass(frozen=True)
class ClassMap:
    """`classes`: label value -> class id (`IGNORED` for none); `rest`: the id of every other value, or `UNKNOWN`."""

    name: str
    classes: Mapping[Value, int] = field(repr=False)
    rest: int = UNKNOWN
    style: Style | None = field(default=None, repr=False)

    def apply(self, values: NDArray[Any]) -> tuple[U8, Counter[Value]]:
        """(class ids u8 [H, W], how many pixels had each value that the map does not know; those are ignored).

        `values` [H, W] are grey or palette values, [H, W, 3] are red, green, blue.
        Raises ConfigError when the map says nothing of this kind of picture.
        """
        kind = "colours" if values.ndim == 3 else "grey or palette values"
        table = self._colours if values.ndim == 3 else self._ids
        if table is None:
            raise ConfigError(f"holds {kind}, of which the class map {self.name} names none")
        codes = _codes(values) if values.ndim == 3 else values
        ids = table[codes]
        strange = ids == UNKNOWN
        if not strange.any():
            return ids, Counter()
        found, counts = np.unique(codes[strange], return_counts=True)
        ids[strange] = IGNORED
        return ids, Counter(
            {_colour(int(v)) if values.ndim == 3 else int(v): int(n) for v, n in zip(found, counts, strict=True)}
        )

    @property
    def wants_indices(self) -> bool:
        """Whether a palette picture is read as its indices; as its colours otherwise."""
        return self._ids is not None

    @cached_property
    def _ids(self) -> U8 | None:
        """u8 [65536], or None when the map names colours only."""
        named = {value: to for value, to in self.classes.items() if isinstance(value, int)}
        if not named:
            return None
        table = np.full(1 << 16, self.rest, np.uint8)
        table[255] = IGNORED
        table[list(named)] = list(named.values())
        return table

    @cached_property
    def _colours(self) -> U8 | None:
        """u8 [2 ** 24]: 16 MB are looked up faster than colours are sorted."""
        named = {value: to for value, to in self.classes.items() if not isinstance(value, int)}
        if not named:
            return None
        table = np.full(1 << 24, self.rest, np.uint8)
        for (red, green, blue), to in named.items():
            table[red << 16 | green << 8 | blue] = to
        return table


def class_map(
    source: str,
    ours: Sequence[str],
    base: Path,
    inline: Mapping[str, str | None] | None = None,
    others: str | None = None,
) -> ClassMap:
    """The map that `source` names, a style or a file (relative: to `base`), for a recipe with the classes `ours`.
    `inline` and `others` come first, before what the file says. Raises ConfigError naming the choices."""
    if source in STYLES:
        return _resolved(source, STYLES[source], dict(inline or {}), others, ours)
    path = base / Path(source).expanduser()
    content = _read(path)
    style = STYLES.get(content["style"]) if content["style"] else None
    if content["style"] and style is None:
        raise ConfigError(f"class map {path}: style {content['style']!r} is unknown; there is: {', '.join(STYLES)}")
    named = content["map"] | dict(inline or {})
    return _resolved(str(path), style, named, others or content["others"], ours)


def _resolved(
    name: str, style: Style | None, named: Mapping[Any, str | None], others: str | None, ours: Sequence[str]
) -> ClassMap:
    ids: dict[str | None, int] = {None: IGNORED} | {one: i for i, one in enumerate(ours)}
    for to in (*named.values(), others):
        if to not in ids:
            raise ConfigError(f"class map {name}: {to!r} is no class of the recipe; it has {', '.join(ours)}")
    rest = ids[others] if others is not None else UNKNOWN
    by_value: dict[Value, int] = {v: ids[to] for key, to in named.items() if (v := _value(key)) is not None}
    by_name = {_plain(key): ids[to] for key, to in named.items() if _value(key) is None}
    if style is None:
        if by_name:
            stray = next(str(key) for key in named if _value(key) is None)
            raise ConfigError(
                f"class map {name}: {stray!r} is no label value; names need a `style`: {', '.join(STYLES)}"
            )
        return ClassMap(name, by_value, rest)
    known = {_plain(one): one for names in style.values.values() for one in names}
    if unknown := [key for key in by_name if key not in known]:
        raise ConfigError(f"class map {name}: the style has no {unknown[0]!r}; it has {', '.join(known.values())}")
    own = {_plain(one): ids[one] for one in ours}
    classes = {value: _class_of(names, by_name, own, rest) for value, names in style.values.items()}
    classes |= {
        value: IGNORED for value in style.void if not set(map(_plain, style.values.get(value, ()))) & set(by_name)
    }
    classes |= by_value
    if set(classes.values()) <= {IGNORED, rest}:
        raise ConfigError(f"class map {name}: names no class of the recipe ({', '.join(ours)}); say which in `map`")
    return ClassMap(name, classes, rest, style)


def _class_of(names: Sequence[str], by_name: Mapping[str, int], own: Mapping[str, int], rest: int) -> int:
    """What the map says of the narrowest name that it has, or the recipe's class of such a name, or the rest."""
    plain = [_plain(name) for name in names]
    for table in (by_name, own):
        for name in plain:
            if name in table:
                return table[name]
    return IGNORED if rest == UNKNOWN else rest


def _read(path: Path) -> dict[str, Any]:
    """{"style", "map", "others"} of a file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"class map {path}: no such file, and no style ({', '.join(STYLES)})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class map {path} cannot be read: {error}") from None
    if path.suffix.lower() in (".yaml", ".yml"):
        return _from_yaml(text, path)
    return {"style": None, "map": _from_lines(text, path), "others": None}


def _from_yaml(text: str, path: Path) -> dict[str, Any]:
    try:
        content = from_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"class map {path} is not YAML: {' '.join(str(error).split())}") from None
    keys: dict[str, Any] = {"style": None, "map": {}, "others": None}
    if not isinstance(content, dict) or not content or set(content) - set(keys):
        raise ConfigError(f"class map {path} must hold some of: style, map, others")
    content = keys | content
    for key in ("style", "others"):
        if not isinstance(content[key], str | None):
            raise ConfigError(f"class map {path}: {key} must be a name, not {content[key]!r}")
    if not isinstance(content["map"], dict) or not all(
        to is None or isinstance(to, str) for to in content["map"].values()
    ):
        raise ConfigError(f"class map {path}: map must say `value or name: class` (or null, for what is ignored)")
    return content


def _from_lines(text: str, path: Path) -> dict[Value, str | None]:
    named: dict[Value, str | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = [word for word in re.split(r"[,;:\s]+", line.split("#")[0]) if word]
        digits = [int(word) for word in words if word.isdigit()]
        names = [word for word in words if not word.isdigit()]
        if not words or (not digits and not named):  # blank, or titles
            continue
        value = _value(",".join(map(str, digits)))
        if value is None or len(names) != 1:
            raise ConfigError(
                f"class map {path}, line {number}: {line.strip()!r} is not a value (or three) and a class"
            )
        named[value] = None if names[0] == "-" else names[0]
    if not named:
        raise ConfigError(f"class map {path} names no value; a line is such as `7, road` or `128 64 128 road`")
    return named


def _value(key: object) -> Value | None:
    """A grey value 0..65535 or a colour; None for a name. Numbers in text are the same."""
    numbers = [int(part) for part in re.findall(r"\d+", str(key))] if re.fullmatch(r"[\d\s,()\[\]]+", str(key)) else []
    if len(numbers) == 1 and numbers[0] < 1 << 16:
        return numbers[0]
    if len(numbers) == 3 and max(numbers) < 256:
        return numbers[0], numbers[1], numbers[2]
    return None


def _plain(name: object) -> str:
    """Traffic Light, traffic_light and traffic-light are the same name."""
    return re.sub(r"[\s_]+", "-", str(name).strip().lower())


def _codes(rgb: NDArray[Any]) -> NDArray[np.int32]:
    wide = rgb.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _colour(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255
