"""A training recipe: what a `recipe.yaml` may say. No thread, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamseg.errors import ConfigError

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Chance = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Channel = Annotated[int, Field(ge=0, le=255)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassRecipe(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    colour: tuple[Channel, Channel, Channel]


class Folders(Model):
    """Labelled pictures on disk: `root/<split>/*.jpg` beside `root/<split>annot/*.png` (u8 class ids)."""

    kind: Literal["folders"]
    root: Path
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    share: Share = 1.0


class Synthetic(Model):
    """Pictures of `synthetic://street`, many seeds, drawn once and kept in the user's cache."""

    kind: Literal["synthetic"]
    pictures: Count
    width: Count = 480
    height: Count = 272
    seed: int = 1000
    """The first street's seed; a test should look at streets below it."""
    share: Share = 1.0


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


class Losses(Model):
    """Softened class weights 1 / log(`softness` + frequency), a soft Jaccard term, and the auxiliary heads' share."""

    softness: Annotated[float, Field(gt=1)] = 1.1
    jaccard: Annotated[float, Field(ge=0)] = 0.5
    auxiliary: Annotated[float, Field(ge=0)] = 0.4


class Recipe(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str = ""
    licence: str
    """Of the weights; the data's own licence may restrict them."""
    data: str
    """What they were trained on, in words."""
    width: Annotated[int, Field(ge=32, le=8192)] = 480
    height: Annotated[int, Field(ge=32, le=8192)] = 272
    """The size that the engine analyses pictures at by default."""
    architecture: str = "edge"
    classes: Annotated[tuple[ClassRecipe, ...], Field(min_length=2, max_length=254)]
    datasets: Annotated[tuple[Annotated[Folders | Synthetic, Field(discriminator="kind")], ...], Field(min_length=1)]
    report: Folders | None = None
    """Pictures whose accuracy is logged now and then. Nothing is selected by it: the last weights are the result."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    init: Path | None = None
    """Weights to start from: another run's `checkpoint.pt`. What has another shape (the head) starts afresh."""
    crop: tuple[Count, Count] = (384, 320)
    """Width and height of what the network sees in training; multiples of 32."""
    batch: Annotated[int, Field(ge=2)] = 12
    epochs: Count = 200
    epoch_pictures: Count | None = None
    """Pictures per epoch; the first data set's size when left out."""
    learning_rate: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup_epochs: Annotated[float, Field(ge=0)] = 3
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    augment: Augment = Augment()
    losses: Losses = Losses()
    seed: int = 0

    @field_validator("crop")
    @classmethod
    def _multiples(cls, crop: tuple[int, int]) -> tuple[int, int]:
        if any(side % 32 for side in crop):
            raise ValueError("must be multiples of 32")
        return crop

    @model_validator(mode="after")
    def _shares(self) -> Recipe:
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("classes: two have the same name")
        return self


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe. Raises ConfigError naming the file, the field and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from None
    try:
        return Recipe.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        faults = "; ".join(f"{_where(f['loc'])}: {f['msg']} (got {_short(f['input'])})" for f in error.errors())
        raise ConfigError(f"recipe {path}: {faults}") from None


def _where(location: tuple[int | str, ...]) -> str:
    """("datasets", 0, "folders", "root") -> "datasets[0].root" (pydantic puts the union's tag in between)."""
    parts = [p for i, p in enumerate(location) if not (i and location[i - 1 : i] and p in ("folders", "synthetic"))]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".") or "recipe"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
