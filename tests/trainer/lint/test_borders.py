"""Bars: their shares, and what is inside."""

from __future__ import annotations

import numpy as np
import pytest

from bench.lint.pictures import draw
from bench.lint.scene import picture, style, view
from trainer.lint import borders

PICTURE = draw("leaves", 7, (300, 200))


@pytest.mark.parametrize(
    ("bars", "sides"),
    [
        ((20, 0, 20, 0), ["left", "right"]),
        ((0, 30, 0, 30), ["top", "bottom"]),
        ((25, 25, 25, 25), ["left", "top", "right", "bottom"]),
        ((0, 30, 0, 0), []),
        ((0, 0, 0, 0), []),
    ],
)
@pytest.mark.parametrize("colour", [0, 255])
def test_bars_count_in_pairs(bars, sides, colour):
    left, top, right, bottom = bars
    pixels = np.pad(PICTURE, ((top, bottom), (left, right), (0, 0)), constant_values=colour)
    found = borders.measure(pixels)
    assert found.sides == sides
    if sides:
        shares = left / pixels.shape[1], top / pixels.shape[0]
        assert (found.left, found.top) == pytest.approx(shares, abs=0.005)
        assert np.abs(np.array(borders.inside(pixels, found).shape[:2]) - PICTURE.shape[:2]).max() <= 4


def test_two_bars_of_different_colours_are_none():
    pixels = PICTURE.copy()
    pixels[:20], pixels[-20:] = 0, 255
    assert not borders.measure(pixels).sides


def test_a_ground_that_most_pictures_stand_on_is_no_border():
    card = np.full((256, 256, 3), style("ink")[0].measures.border.ground, np.uint8)
    card[60:-60, 50:-50] = 0
    alone = picture("card.png", card)
    assert [finding.pictures for finding in borders.border(view([alone]))] == [("card.png",)]
    assert not list(borders.border(view([*style("ink"), alone])))
