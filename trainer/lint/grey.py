"""Pixels as light: what the measures of a picture start from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.buckets import Size
from trainer.data.images import Pixels

Grey = NDArray[np.float32]
"""[height, width] in 0 .. 255."""

_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


def grey(pixels: Pixels) -> Grey:
    """``0.299 R + 0.587 G + 0.114 B`` (ITU-R BT.601)."""
    return pixels.astype(np.float32) @ _WEIGHTS


def resized(pixels: Pixels, size: Size) -> Pixels:
    """Averaged down (or stretched) to ``size`` (width, height), whatever the aspect."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def within(pixels: Pixels, side: int) -> Pixels:
    """Reduced so that the longer side is at most ``side``; never enlarged."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
