# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
"""The kernels themselves, in Triton's language, which allows no annotations. See `nv12` and `labelling` for what they
are given."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _share(place, centre, reach):
    """How much of source sample `place` lies under an output sample: a box that is as wide as the ratio of the sizes;
    a triangle where the picture is enlarged."""
    return tl.minimum(tl.maximum(reach - tl.abs(place.to(tl.float32) + 0.5 - centre), 0.0), 1.0)


@triton.jit(do_not_specialize=["width", "height"])  # compiled once, not anew for every size that 16 divides or not
def nv12_to_rgb(entries, colours, out, width, height, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    entry = entries + tl.program_id(2) * 16
    y_plane = tl.load(entry).to(tl.pointer_type(tl.uint8))
    uv_plane = tl.load(entry + 1).to(tl.pointer_type(tl.uint8))
    y_stride, uv_stride = tl.load(entry + 2), tl.load(entry + 3)
    left, top = tl.load(entry + 4).to(tl.int32), tl.load(entry + 5).to(tl.int32)
    columns, rows = tl.load(entry + 6).to(tl.int32), tl.load(entry + 7).to(tl.int32)
    uv_columns, uv_rows = tl.load(entry + 8).to(tl.int32), tl.load(entry + 9).to(tl.int32)
    whole_width, whole_height = tl.load(entry + 10).to(tl.int32), tl.load(entry + 11).to(tl.int32)
    at_x, at_y = tl.load(entry + 12).to(tl.int32), tl.load(entry + 13).to(tl.int32)
    colour = colours + tl.load(entry + 15) * 6

    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = (row < height)[:, None] & (column < width)[None, :]
    x, y = column + at_x, row + at_y

    ratio_x, ratio_y = columns.to(tl.float32) / whole_width, rows.to(tl.float32) / whole_height
    wide, high = tl.maximum(ratio_x, 1.0), tl.maximum(ratio_y, 1.0)
    reach_x, reach_y = 0.5 + 0.5 * wide, 0.5 + 0.5 * high
    centre_x, centre_y = (x.to(tl.float32) + 0.5) * ratio_x, (y.to(tl.float32) + 0.5) * ratio_y
    first_x, first_y = tl.ceil(centre_x - reach_x - 0.5).to(tl.int32), tl.ceil(centre_y - reach_y - 0.5).to(tl.int32)
    luma = tl.zeros([ROWS, COLUMNS], tl.float32)
    for i in range(high.to(tl.int32) + 2):
        share_y = _share(first_y + i, centre_y, reach_y)
        line = y_plane + (top + tl.minimum(tl.maximum(first_y + i, 0), rows - 1)).to(tl.int64) * y_stride + left
        for j in range(wide.to(tl.int32) + 2):
            place = tl.minimum(tl.maximum(first_x + j, 0), columns - 1)
            sample = tl.load(line[:, None] + place[None, :], mask=inside, other=0).to(tl.float32)
            luma += sample * share_y[:, None] * _share(first_x + j, centre_x, reach_x)[None, :]
    luma /= wide * high

    pair = 2 - whole_width % 2  # columns that share a chroma sample
    uv_width = whole_width // pair
    ratio_x, ratio_y = uv_columns.to(tl.float32) / uv_width, uv_rows.to(tl.float32) / whole_height
    wide, high = tl.maximum(ratio_x, 1.0), tl.maximum(ratio_y, 1.0)
    reach_x, reach_y = 0.5 + 0.5 * wide, 0.5 + 0.5 * high
    centre_x, centre_y = ((x // pair).to(tl.float32) + 0.5) * ratio_x, (y.to(tl.float32) + 0.5) * ratio_y
    first_x, first_y = tl.ceil(centre_x - reach_x - 0.5).to(tl.int32), tl.ceil(centre_y - reach_y - 0.5).to(tl.int32)
    u, v = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for i in range(high.to(tl.int32) + 2):
        share_y = _share(first_y + i, centre_y, reach_y)
        above = top // 2 + tl.minimum(tl.maximum(first_y + i, 0), uv_rows - 1)
        line = uv_plane + above.to(tl.int64) * uv_stride + left // 2 * 2
        for j in range(wide.to(tl.int32) + 2):
            place = line[:, None] + 2 * tl.minimum(tl.maximum(first_x + j, 0), uv_columns - 1)[None, :]
            share = share_y[:, None] * _share(first_x + j, centre_x, reach_x)[None, :]
            u += tl.load(place, mask=inside, other=0).to(tl.float32) * share
            v += tl.load(place + 1, mask=inside, other=0).to(tl.float32) * share
    u, v = u / (wide * high) - 128.0, v / (wide * high) - 128.0

    grey = (luma - tl.load(colour)) * tl.load(colour + 1)
    red = grey + v * tl.load(colour + 2)
    green = grey + u * tl.load(colour + 3) + v * tl.load(colour + 4)
    blue = grey + u * tl.load(colour + 5)
    first = (tl.load(entry + 14) * height + row)[:, None] * width + column[None, :]
    tl.store(out + 3 * first, _level(red), mask=inside)
    tl.store(out + 3 * first + 1, _level(green), mask=inside)
    tl.store(out + 3 * first + 2, _level(blue), mask=inside)


@triton.jit
def _level(value):
    return tl.floor(tl.minimum(tl.maximum(value, 0.0), 255.0) + 0.5).to(tl.uint8)


@triton.jit
def _corners(place, samples, sides):
    """The two samples that an output sample lies between (half-pixel centres, edges go on); the second one's share."""
    at = tl.maximum((place.to(tl.float32) + 0.5) * (samples.to(tl.float32) / sides) - 0.5, 0.0)
    first = tl.minimum(at.to(tl.int32), samples - 1)
    return first, tl.minimum(first + 1, samples - 1), at - first.to(tl.float32)


@triton.jit(do_not_specialize=["classes", "rows", "columns", "height", "width"])
def scores_to_labels(scores, labels, classes, rows, columns, height, width, COLUMNS: tl.constexpr):
    picture, row = tl.program_id(2).to(tl.int64), tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    above, below, low = _corners(row, rows, height)
    left, right, far = _corners(column, columns, width)
    plane = scores + picture * classes * rows * columns
    best = tl.full([COLUMNS], float("-inf"), tl.float32)
    label = tl.zeros([COLUMNS], tl.int32)
    for k in range(classes):
        over, under = plane + above * columns, plane + below * columns
        upper = tl.load(over + left, mask=inside) * (1 - far) + tl.load(over + right, mask=inside) * far
        lower = tl.load(under + left, mask=inside) * (1 - far) + tl.load(under + right, mask=inside) * far
        score = upper * (1 - low) + lower * low
        label = tl.where(score > best, k, label)
        best = tl.maximum(score, best)
        plane += rows * columns
    tl.store(labels + (picture * height + row) * width + column, label.to(tl.uint8), mask=inside)
