"""Width of edges against the Gaussian they were blurred by; traces of resampling against the factor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from bench.lint.pictures import draw
from trainer.lint import sharpness


def step(deviation: float, angle: float, height: float = 200) -> np.ndarray:
    """A step at ``angle`` blurred by a Gaussian of ``deviation``, in whole levels: the Gaussian's integral."""
    y, x = np.mgrid[-64:64, -64:64]
    across = (x * math.cos(angle) + y * math.sin(angle)) / (deviation * math.sqrt(2))
    return np.round(20 + height * (np.vectorize(math.erf)(across) + 1) / 2).astype(np.float32)


@pytest.mark.parametrize("deviation", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("angle", [0.5, 1.0, 2.2])
@pytest.mark.parametrize("height", [60, 200])
def test_the_width_of_an_edge_is_the_deviation_of_its_blur(deviation, angle, height):
    assert sharpness.edge_width(step(deviation, angle, height)) == pytest.approx(deviation, rel=0.15)


def test_an_even_picture_has_no_edges():
    assert sharpness.edge_width(np.full((64, 64), 7, np.float32)) == 0


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
def test_the_factor_of_an_enlargement(factor):
    small = Image.fromarray(draw("leaves", 5, (300, 300))).resize((round(300 / factor),) * 2, Image.Resampling.LANCZOS)
    enlarged = np.array(small.resize((300, 300), Image.Resampling.BICUBIC))
    assert sharpness.measure(enlarged, (300, 300)).factor == pytest.approx(factor, rel=0.05)
    assert sharpness.measure(draw("leaves", 5, (300, 300)), (300, 300)).factor == 1


def test_repeated_pixels_are_counted_exactly():
    art = np.random.default_rng(0).integers(0, 4, (40, 40, 1), np.uint8).repeat(3, 2) * 60
    assert sharpness.measure(art.repeat(5, 0).repeat(5, 1), (192, 192)).factor == 5
    assert sharpness.measure(art, (40, 40)).factor == 1


def test_a_soft_picture_that_is_trained_small_is_sharp():
    blurred = Image.fromarray(draw("leaves", 5, (640, 640))).resize((160, 160)).resize((640, 640), Image.Resampling.BICUBIC)
    pixels = np.array(blurred)
    assert sharpness.measure(pixels, (640, 640)).width > sharpness.BLURRED
    assert sharpness.measure(pixels, (160, 160)).width < sharpness.BLURRED - 0.1
