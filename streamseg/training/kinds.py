"""The kinds of data sets that a recipe may name, as pydantic models. No thread, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from streamseg.config import Model, Side
from streamseg.evaluation.pictures import PICTURES
from streamseg.training.styles import Layout

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class DataSet(Model):
    """What every kind has: its `share` of what the network sees, and whether the recipe's teacher looks at it."""

    share: Share = 1.0
    teacher: bool = False
    """Whether `distill`'s engines are asked about its pictures."""


class Mapped(DataSet):
    """Of pictures that somebody labelled, perhaps with other classes than the recipe's."""

    map: dict[str, str | None] = Field(default_factory=dict)
    """Their class -> the recipe's, or null for what is to be ignored. What is not named keeps its name, if it has it
    in the recipe too; otherwise it becomes `others`."""
    others: str | None = None
    """The recipe's class for what `map` does not name; ignored when left out."""


class Labelled(Mapped):
    """Of pictures with a label for every pixel."""

    classes: tuple[str, ...] = ()
    """The names of label values 0, 1, ...; the recipe's own when left out."""


class Folders(Labelled):
    """Labelled pictures on disk: `root/<split>/*.jpg` (or any other of `PICTURES`) beside `root/<split>annot/*.png` (u8
    class ids), or laid out as another data set is (`class_map`), or as `images`, `labels`, `suffix` and `names` say
    (see `styles.Layout`)."""

    kind: Literal["folders"]
    root: Path
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    class_map: str | None = None
    """What label values mean, in place of `classes`: a style (cityscapes, camvid, coco-stuff, voc) or a file, see
    `classmap.py`."""
    images: str | None = None
    labels: str | None = None
    suffix: tuple[str, str] = ("", "")
    names: str | None = None
    width: Side | None = None
    """Wider pictures are scaled down to this, with their labels. Crops are cut from them as they are otherwise, and
    the engine will see things smaller than it learned them."""

    @model_validator(mode="after")
    def _said_once(self) -> Folders:
        if self.class_map and self.classes:
            raise ValueError("class_map and classes both say what label values mean; leave one out")
        if (self.images is None) != (self.labels is None):
            raise ValueError("images and labels belong together; leave none of them out, or both")
        if self.images is None and (self.names or any(self.suffix)):
            raise ValueError("suffix and names need images and labels beside them")
        return self

    @property
    def maps(self) -> bool:
        """Whether the label values are not simply the recipe's class ids."""
        return bool(self.class_map or self.classes or self.map or self.others)

    @property
    def layout(self) -> Layout | None:
        """Where the recipe says that everything lies; None where the style knows."""
        if self.images is None or self.labels is None:
            return None
        return Layout(self.images, self.labels, self.suffix, self.names)


class Synthetic(Labelled):
    """Pictures of `synthetic://street`, many seeds, drawn once and kept in the user's cache. Its classes are CamVid's;
    they are taken by their numbers, as long as neither `map` nor `others` is given."""

    kind: Literal["synthetic"]
    pictures: Count
    width: Count = 480
    height: Count = 272
    seed: int = 1000
    """The first street's seed; a test should look at streets below it."""


class Refine(Model):
    """When labels made from boxes are made anew from what the network says: `rounds` times, the first time when the
    share `after` of the training is done, the others evenly over the rest."""

    after: Annotated[float, Field(gt=0, lt=1)] = 0.5
    rounds: Count = 1

    def at(self, i: int) -> float:
        """The share of the training after which round `i` comes."""
        return self.after + (1 - self.after) * i / self.rounds


class Boxes(Mapped):
    """Pictures with bounding boxes only, in a COCO JSON; `map` and `others` are of its categories. Pixels outside all
    boxes are `others`, or else ignored. See `boxes.py` for what becomes of the boxes."""

    kind: Literal["boxes"]
    root: Path
    """The folder that the JSON's `file_name`s are in."""
    annotations: Path
    """The JSON, in `root` or from there."""
    width: Side = 960
    """Wider pictures are scaled down to this."""
    refine: Refine | None = Refine()
    """Null for never."""


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
    files: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(f"**/*{end}" for end in PICTURES)
    limit: Count | None = None
    """At most so many, evenly spread over their names."""
    width: Side = 480


AnyDataSet = Annotated[Folders | Synthetic | Clips | Stills | Boxes, Field(discriminator="kind")]
TAGS = ("folders", "synthetic", "clips", "pictures", "boxes")
