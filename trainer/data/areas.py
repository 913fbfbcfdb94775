"""Means of an image over areas that are not whole pixels. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.conditioning import Size
from trainer.data.buckets import Box


def area_means(values: NDArray[np.uint8], box: Box, cells: Size) -> NDArray[np.float32]:
    """``[h, w]``: the means of ``values`` [H, W] over ``cells`` (w, h) equal cells of ``box``, each pixel by its share in it."""
    left, top, right, bottom = box
    across = _shares(values.shape[1], left, right, cells[0])
    down = _shares(values.shape[0], top, bottom, cells[1])
    return (down @ values @ across.T).astype(np.float32)


def _shares(length: int, start: float, stop: float, cells: int) -> NDArray[np.float64]:
    """``[cells, length]``: which share of each cell between ``start`` and ``stop`` each pixel is; rows add up to 1."""
    edges = np.linspace(start, stop, cells + 1)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(overlap, 0, None)
    return shares / shares.sum(1, keepdims=True)
