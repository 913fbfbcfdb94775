"""The style benchmark's scores on pictures whose answer is known."""

from __future__ import annotations

import pytest
import torch

from bench import style
from bench.judge import Judge


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.mark.parametrize("name", ["duotone", "ink", "blueprint"])
def test_true_pictures_score_as_the_style_and_their_concepts(judge, name):
    held = style.held_out(name, judge, 20)
    scores = style.measure(held.truth, held, judge)
    assert len(held.captions) == 20
    assert scores.distance == 0.0 and scores.called_style >= 0.95 and scores.concept_top5 >= 0.95


def test_wrong_pictures_score_low(judge):
    held, other = style.held_out("duotone", judge, 20), style.held_out("ink", judge, 20)
    swapped = style.measure(held.truth.roll(1, 0), held, judge)
    assert swapped.concept_top1 <= 0.1 and swapped.distance > 0.05
    assert style.measure(other.truth, held, judge).called_style <= 0.05


def test_grey_noise_has_the_closed_form_distance(judge):
    held = style.held_out("ink", judge, 4)
    shifted = style.measure((held.truth + 0.25), held, judge)
    assert shifted.distance == pytest.approx(0.25, abs=1e-4)


def test_the_sheet_has_a_row_for_each_model():
    pictures = [("base", torch.zeros(3, 3, 64, 64)), ("pocket-lora", torch.ones(3, 3, 64, 64))]
    sheet = style.draw_sheet(pictures, ["t, a", "t, b", "t, c"])
    assert sheet.size == (90 + 3 * 128, 20 + 2 * 128)
    assert sheet.getpixel((100, 60)) == (0, 0, 0) and sheet.getpixel((100, 60 + 128)) == (255, 255, 255)
