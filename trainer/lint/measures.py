"""Everything that is measured of one picture's pixels, once: the pixels themselves are let go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.buckets import Size
from trainer.data.images import Pixels
from trainer.lint import borders, duplicates, look, overlays, sharpness, text
from trainer.lint.borders import Border
from trainer.lint.duplicates import Signature
from trainer.lint.overlays import Patches
from trainer.lint.sharpness import Sharpness
from trainer.lint.text import TextLine


@dataclass(frozen=True)
class Measures:
    """One field a family of rules."""

    signature: Signature
    sharpness: Sharpness
    border: Border
    text: tuple[TextLine, ...]
    patches: Patches
    look: NDArray[np.float64]


def measure(pixels: Pixels, bucket: Size) -> Measures:
    """All measures of a picture that is trained at ``bucket``."""
    border = borders.measure(pixels)
    return Measures(
        duplicates.measure(borders.inside(pixels, border)),
        sharpness.measure(pixels, bucket),
        border,
        text.measure(pixels),
        overlays.measure(pixels),
        look.measure(pixels),
    )
