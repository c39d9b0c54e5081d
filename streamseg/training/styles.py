"""The published label values and folder layouts of well-known data sets: tables only. No thread, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = int | tuple[int, int, int]
"""A label as it is in a picture: a grey or palette index, or a colour (red, green, blue)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where pictures and labels lie below a data set's root; `{split}` stands for the split's name.

    `images` is a folder (searched with the folders in it) or a pattern of file names. The labels of `a/b.jpg` in it are
    `a/b.png` in `labels`, the first `suffix` taken off the name and the second put on. `names` is a text file that
    lists a split's pictures, one a line; only those are taken.
    """

    images: str = "{split}"
    labels: str = "{split}annot"
    suffix: tuple[str, str] = ("", "")
    names: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """`values`: label value -> its published names, the narrowest first (rider, human). `void` values mean nothing."""

    values: Mapping[Value, tuple[str, ...]] = field(repr=False)
    void: frozenset[Value]
    layouts: tuple[Layout, ...]
    """The first that is there is taken."""


def _numbered(names: str) -> dict[Value, tuple[str, ...]]:
    """ "a, b/group" -> {0: ("a",), 1: ("b", "group")}"""
    return {i: tuple(name.strip().split("/")) for i, name in enumerate(names.replace("\n", " ").split(","))}


def _coloured(table: str) -> dict[Value, tuple[str, ...]]:
    """Lines of "red green blue name/group"."""
    rows = (line.split() for line in table.strip().splitlines())
    return {(int(r), int(g), int(b)): tuple(name.split("/")) for r, g, b, name in rows}


CITYSCAPES = Style(  # labels.py of cityscapesScripts: name/category by id
    _numbered(
        """unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road/flat, sidewalk/flat,
        parking/flat, rail track/flat, building/construction, wall/construction, fence/construction,
        guard rail/construction, bridge/construction, tunnel/construction, pole/object, polegroup/object,
        traffic light/object, traffic sign/object, vegetation/nature, terrain/nature, sky, person/human, rider/human,
        car/vehicle, truck/vehicle, bus/vehicle, caravan/vehicle, trailer/vehicle, train/vehicle, motorcycle/vehicle,
        bicycle/vehicle"""
    ),
    void=frozenset(range(7)),
    layouts=(Layout("leftImg8bit/{split}", "gtFine/{split}", ("_leftImg8bit", "_gtFine_labelIds")),),
)

CAMVID = Style(  # label_colors.txt, grouped into the eleven classes that papers report on; and those classes' own ids
    _numbered("sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist, void")
    | _coloured(
        """
        64 128 64 Animal/pedestrian
        192 0 128 Archway/building
        0 128 192 Bicyclist
        0 128 64 Bridge/building
        128 0 0 Building
        64 0 128 Car
        64 0 192 CartLuggagePram/pedestrian
        192 128 64 Child/pedestrian
        192 192 128 Column_Pole/pole
        64 64 128 Fence
        128 0 192 LaneMkgsDriv/road
        192 0 64 LaneMkgsNonDriv/road
        128 128 64 Misc_Text/sign
        192 0 192 MotorcycleScooter/bicyclist
        128 64 64 OtherMoving/car
        64 192 128 ParkingBlock/pavement
        64 64 0 Pedestrian
        128 64 128 Road
        128 128 192 RoadShoulder/pavement
        0 0 192 Sidewalk/pavement
        192 128 128 SignSymbol/sign
        128 128 128 Sky
        64 128 192 SUVPickupTruck/car
        0 0 64 TrafficCone/pole
        0 64 64 TrafficLight/sign
        192 64 128 Train/car
        128 128 0 Tree
        192 128 192 Truck_Bus/car
        64 0 64 Tunnel/building
        192 192 0 VegetationMisc/tree
        0 0 0 Void
        64 192 0 Wall/building"""
    ),
    void=frozenset({11, (0, 0, 0)}),
    layouts=(
        Layout(),  # as packed for SegNet
        Layout("{split}", "{split}_labels", ("", "_L")),
        Layout("701_StillsRaw_full", "LabeledApproved_full", ("", "_L"), "{split}.txt"),  # as first published
    ),
)

VOC = Style(
    _numbered(
        """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
        motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
    ),
    void=frozenset({255}),
    layouts=(Layout("JPEGImages", "SegmentationClass", names="ImageSets/Segmentation/{split}.txt"),),
)

COCO_STUFF = Style(  # stuffthingmaps_trainval2017: one less than the ids of labels.txt, and 255 is unlabelled
    _numbered(
        """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
        street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
        hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
        baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife,
        spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
        potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard,
        cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear,
        hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage,
        cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
        dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog,
        food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal,
        mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
        playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper,
        snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable,
        wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
        window-blind, window-other, wood"""
    ),
    void=frozenset({255}),
    layouts=(
        Layout("images/{split}", "annotations/{split}"),
        Layout("{split}", "stuffthingmaps/{split}"),
        Layout("{split}", "stuffthingmaps_trainval2017/{split}"),
    ),
)

STYLES: Mapping[str, Style] = {"cityscapes": CITYSCAPES, "camvid": CAMVID, "coco-stuff": COCO_STUFF, "voc": VOC}
