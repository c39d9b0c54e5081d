"""A training recipe: what a `recipe.yaml` may say. No thread, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from streamseg.config import WORDS, Model, Side, from_yaml
from streamseg.engine.bundle import ClassEntry
from streamseg.errors import ConfigError
from streamseg.training.kinds import TAGS, AnyDataSet, Count, DataSet, Folders, Mapped, Positive

Chance = Annotated[float, Field(ge=0, le=1)]


def _multiples(crop: tuple[int, int] | None) -> tuple[int, int] | None:
    if crop and any(side % 32 for side in crop):
        raise ValueError("must be multiples of 32")
    return crop


class Augment(Model):
    """Chances and ranges of the random changes to a picture (see `augment.py`)."""

    scale: tuple[Positive, Positive] = (0.5, 2.0)
    aspect: Annotated[float, Field(ge=1)] = 1.1
    rotate_degrees: Annotated[float, Field(ge=0, le=45)] = 3.0
    flip: Chance = 0.5
    colour: Chance = 0.8
    grey: Chance = 0.03
    noise: Chance = 0.15
    blur: Chance = 0.1
    jpeg: Chance = 0.1
    paste: Chance = 0.0
    """Objects of `paste_classes` are copied from a second picture, as augmented (ClassMix, Olsson et al. 2021)."""
    paste_classes: tuple[str, ...] = ()
    paste_across: bool = False
    """The second picture is of any data set, not of the same: objects are seen in places where they never were."""

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be [smallest, largest]")
        return scale


class Finish(Model):
    """The end of the schedule, near to what the network will see: whole pictures, changed less. Crops are smaller than
    pictures, and enlarged ones teach another size of things (FixRes, Touvron et al. 2019)."""

    after: Chance = 0.75
    """The share of the schedule after which it begins (with an epoch)."""
    crop: tuple[Count, Count] | None = None
    augment: Augment | None = None

    _crop = field_validator("crop")(_multiples)


class Losses(Model):
    """Softened class weights 1 / log(`softness` + frequency), a soft Jaccard term, and the auxiliary heads' share."""

    softness: Annotated[float, Field(gt=1)] = 1.1
    jaccard: Annotated[float, Field(ge=0)] = 0.5
    auxiliary: Annotated[float, Field(ge=0)] = 0.4
    ohem: Chance = 0.0
    """Above 0, only hard pixels count in the cross entropy (online hard example mining, Shrivastava et al. 2016): at
    least this share of them (BiSeNet: 0.0625), and all whose class is given less than `ohem_chance`."""
    ohem_chance: Chance = 0.7


class Distill(Model):
    """Larger engines that teach (Hinton et al. 2015): their softened probabilities are what the network should give."""

    engine: str | tuple[str, ...]
    """A name, or a bundle's folder (relative: to the recipe's); of several, the mean is taken, and one
    that is named twice counts twice."""
    classes: dict[str, Literal["rest"] | tuple[str, ...]] = Field(default_factory=dict)
    """The recipe's class -> the teachers' classes that it takes together; `rest` is all others. Needed where the names
    differ."""
    weight: Positive = 1.0
    """Of this loss, beside that of hard labels."""
    temperature: Annotated[float, Field(ge=0.5, le=20)] = 1.0
    """Above 1, what the teacher thinks nearly as likely counts more."""
    confident: Chance = 0.0
    """Pixels of which the teacher is less sure than this do not count."""
    size: tuple[Side, Side] | None = None
    """(width, height) that the teachers analyse at; what they fit to the picture when left out. One of a fixed size
    keeps it, and looks at overlapping windows of its own aspect instead (at one scale)."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Multiples of that size, averaged. Above 1, small things are seen better."""
    flip: bool = False
    """The mean of the picture and its mirror image: a better teacher at twice the time."""
    live: bool = False
    """Ask them again, on the CPU, whenever the network sees a picture, as it is cut and changed then (Beyer et al.
    2022): of that they say more than of a picture that they were trained on themselves."""

    @property
    def engines(self) -> tuple[str, ...]:
        return (self.engine,) if isinstance(self.engine, str) else self.engine


class Recipe(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str = ""
    licence: str
    """Of the weights; the data's own licence may restrict them."""
    data: str
    """What they were trained on, in words."""
    width: Side = 480
    height: Side = 272
    """The size that the engine analyses pictures at by default."""
    architecture: str = "edge"
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=2, max_length=254)]
    datasets: Annotated[tuple[AnyDataSet, ...], Field(min_length=1)]
    distill: Distill | None = None
    report: Folders | None = None
    """Pictures whose accuracy is logged now and then. Nothing is selected by it: the last weights are the result."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    init: str | None = None
    """Weights to start from: an engine's name, a bundle's folder or a run's `checkpoint.pt` (relative: to the
    recipe's folder). What has another shape (the head, for other classes) starts afresh."""
    freeze: bool | Count = False
    """With `init`: what was taken over is not trained at all (true), or not for so many epochs."""
    crop: tuple[Count, Count] = (384, 320)
    """Width and height of what the network sees in training; multiples of 32."""
    batch: Annotated[int, Field(ge=2)] = 12
    epochs: Count = 200
    epoch_pictures: Count | None = None
    """Pictures per epoch; the first data set's size when left out."""
    learning_rate: Positive = 2e-3
    schedule: Literal["cosine", "poly"] = "cosine"
    """How the learning rate falls: half a cosine to 1 %, or (1 - t)^0.9 to nothing, as most segmentation papers do."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup_epochs: Annotated[float, Field(ge=0)] = 3
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    augment: Augment = Augment()
    finish: Finish | None = None
    losses: Losses = Losses()
    loader_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that read and change pictures; 0: as many as there are cores."""
    seed: int = 0

    _crop = field_validator("crop")(_multiples)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError("classes: two have the same name")
        if self.freeze and not self.init:
            raise ValueError("freeze: needs `init`, as only what was taken over can be frozen")
        for number, one in enumerate(self.datasets):
            if fault := _fault(one, names, taught=self.distill is not None):
                raise ValueError(f"datasets[{number}]{fault}")
        pasted = [*self.augment.paste_classes, *((self.finish and self.finish.augment) or self.augment).paste_classes]
        if unknown := [name for name in pasted if name not in names]:
            raise ValueError(f"augment.paste_classes: {unknown[0]!r} is no class of the recipe ({', '.join(names)})")
        if self.report and (fault := _fault(self.report, names, taught=True)):
            raise ValueError(f"report{fault}")
        if self.distill and not any(one.teacher for one in self.datasets):
            raise ValueError("distill: no data set asks for the teacher; say `teacher: true` on those that should")
        if self.distill and (unknown := [name for name in self.distill.classes if name not in names]):
            raise ValueError(f"distill.classes: {unknown[0]!r} is no class of the recipe ({', '.join(names)})")
        return self

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]

    def at(self, done: float) -> Recipe:
        """The recipe that an epoch follows which begins at `done` (0..1) of the schedule."""
        if not self.finish or done < self.finish.after:
            return self
        changed = {"crop": self.finish.crop or self.crop, "augment": self.finish.augment or self.augment}
        return self.model_copy(update=changed)


def _fault(one: DataSet, names: list[str], *, taught: bool) -> str:
    """What does not fit between a data set and the rest of the recipe, or ""."""
    if one.teacher and not taught:
        return ".teacher: the recipe has no `distill` that says who it is"
    if isinstance(one, Mapped):
        ours = [*one.map.values(), one.others]
        unknown = [name for name in ours if name is not None and name not in names]
        return f".map: {unknown[0]!r} is no class of the recipe ({', '.join(names)})" if unknown else ""
    return "" if one.teacher else ": nobody labelled these pictures; say `teacher: true`, and `distill` in the recipe"


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe. Raises ConfigError naming the file, the field and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from None
    try:
        return Recipe.model_validate(from_yaml(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        found = error.errors()
        inner = {f["loc"][:n] for f in found for n in range(1, len(f["loc"]))}  # a list with a faulty item is no fault
        found = [f for f in found if f["loc"] not in inner]
        raise ConfigError(f"recipe {path}: {'; '.join(map(_told, found))}") from None


def _told(fault: Any) -> str:
    message = WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    if fault["loc"][-1:] == ("[key]",):
        message = "a name is wanted; label values are named in a file, see `class_map`"
    # One of the whole recipe names its place by itself.
    return f"{_where(fault['loc'])}: {message} (got {_short(fault['input'])})" if fault["loc"] else message


def _where(location: tuple[int | str, ...]) -> str:
    """("datasets", 0, "folders", "root") -> "datasets[0].root" (pydantic puts the union's tag in between)."""
    parts = [p for i, p in enumerate(location) if not (i and location[i - 1 : i] and p in TAGS)]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
