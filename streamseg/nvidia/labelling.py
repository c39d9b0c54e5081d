"""Scores in GPU memory become labels: one Triton kernel interpolates and compares, pixel by pixel.

As torch functions it would cost as much as a small network: street-edge's 11 maps at 480x272, in batches of 32, are
184 MB to write and to read again, for 4 MB of labels. In the thread that calls; it has not run on a GPU yet.
"""

from __future__ import annotations

import torch

from streamseg.nvidia.kernels import scores_to_labels

COLUMNS = 256
"""Pixels of a row that one program labels, two a thread."""


def labels_of(scores: torch.Tensor, labels: torch.Tensor) -> None:
    """Of scores f32 [N, K, h, w], puts labels into u8 [N, H, W]: upsampled bilinearly (half-pixel centres), and of
    equals the first class. Both contiguous, on one device; queued on the current stream."""
    if not (scores.is_contiguous() and labels.is_contiguous()):
        raise ValueError("scores and labels must be contiguous")
    count, classes, rows, columns = scores.shape
    _, height, width = labels.shape
    grid = (-(-width // COLUMNS), height, count)
    with torch.cuda.device_of(labels):
        given = scores, labels, classes, rows, columns, height, width
        scores_to_labels[grid](*given, COLUMNS, enable_fp_fusion=True)
