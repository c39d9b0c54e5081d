"""The kinds of data sets that a recipe may name, as pydantic models. No thread, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=32, le=8192)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSet(Model):
    """What every kind has: its `share` of what the network sees, and whether the recipe's teacher looks at it."""

    share: Share = 1.0
    teacher: bool = False
    """Whether `distill`'s engines are asked about its pictures."""


class Labelled(DataSet):
    """Of pictures whose labels may have other classes than the recipe's."""

    classes: tuple[str, ...] = ()
    """The names of label values 0, 1, ...; the recipe's own when left out."""
    map: dict[str, str | None] = Field(default_factory=dict)
    """Their class -> the recipe's, or null for what is to be ignored. What is not named keeps its name, if it has it
    in the recipe too; otherwise it becomes `others`."""
    others: str | None = None
    """The recipe's class for what `map` does not name; ignored when left out."""


class Folders(Labelled):
    """Labelled pictures on disk: `root/<split>/*.jpg` beside `root/<split>annot/*.png` (u8 class ids)."""

    kind: Literal["folders"]
    root: Path
    splits: Annotated[tuple[str, ...], Field(min_length=1)]


class Synthetic(Labelled):
    """Pictures of `synthetic://street`, many seeds, drawn once and kept in the user's cache. Its classes are CamVid's;
    they are taken by their numbers, as long as neither `map` nor `others` is given."""

    kind: Literal["synthetic"]
    pictures: Count
    width: Count = 480
    height: Count = 272
    seed: int = 1000
    """The first street's seed; a test should look at streets below it."""


class Clips(DataSet):
    """Frames of video files that nobody labelled; they teach what the teacher sees in them."""

    kind: Literal["clips"]
    root: Path
    """A folder."""
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("*.mp4", "*.mkv", "*.avi", "*.mov", "*.ts", "*.webm")
    """Names or patterns within it."""
    every_s: Positive = 0.5
    limit: Count | None = None
    """At most so many frames of each file, evenly spread over it."""
    width: Side = 480
    """Frames are scaled to this width, as the engine will do it."""


class Stills(DataSet):
    """Pictures in a folder (and the folders in it) that nobody labelled."""

    kind: Literal["pictures"]
    root: Path
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("**/*.jpg", "**/*.jpeg", "**/*.png")
    limit: Count | None = None
    """At most so many, evenly spread over their names."""
    width: Side = 480


AnyDataSet = Annotated[Folders | Synthetic | Clips | Stills, Field(discriminator="kind")]
TAGS = ("folders", "synthetic", "clips", "pictures")
