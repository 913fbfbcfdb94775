"""Random colours: brightness, contrast, saturation and hue of a whole picture, as one affine map of its RGB values.

In this order, with factors drawn evenly from ``1 - strength .. 1 + strength`` and the hue's angle from ``-strength .. strength``
turns::

    x <- brightness x
    x <- mean + contrast (x - mean)         mean: the picture's mean luma
    x <- luma + saturation R (x - luma)     R: the rotation of the chroma plane by the angle

``luma = 0.299 R + 0.587 G + 0.114 B``; saturation and hue leave it as it is, and greys grey.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.data.order import draws

LUMA = np.array([0.299, 0.587, 0.114])
CHROMA = np.array([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
"""The plane of I and Q in the colours of NTSC: both are 0 for greys."""


def jitter(pixels: Pixels, strengths: tuple[float, ...], *identity: object) -> Pixels:
    """The colouring of ``pixels`` that ``identity`` stands for."""
    draw = draws("colour", *identity)
    brightness, contrast, saturation = (1 + strength * (2 * draw.random() - 1) for strength in strengths[:3])
    hue = strengths[3] * (2 * draw.random() - 1)
    return recoloured(pixels, brightness, contrast, saturation, hue)


def recoloured(pixels: Pixels, brightness: float, contrast: float, saturation: float, hue: float) -> Pixels:
    """``pixels`` with these factors, the hue in turns; rounded and held within 0 to 255."""
    x = pixels.astype(np.float64) * brightness
    mean = (x @ LUMA).mean()
    x = mean + contrast * (x - mean)
    return np.clip(np.rint(x @ _chroma(saturation, hue).T), 0, 255).astype(np.uint8)


def _chroma(saturation: float, hue: float) -> NDArray[np.float64]:
    """The 3x3 matrix that keeps the luma, and scales and rotates the chroma."""
    basis = np.vstack([LUMA, CHROMA])
    angle = 2 * math.pi * hue
    cosine, sine = saturation * math.cos(angle), saturation * math.sin(angle)
    inside = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(basis) @ inside @ basis
