"""Colours against closed forms and against what each factor must leave alone."""

import colorsys

import numpy as np
import pytest

from trainer.data.colours import LUMA, jitter, recoloured

PIXELS = np.random.default_rng(0).integers(40, 200, (12, 16, 3), dtype=np.uint8)


def test_without_change_the_pixels_stay():
    assert np.array_equal(recoloured(PIXELS, 1, 1, 1, 0), PIXELS)


def test_brightness_and_contrast_are_affine_maps():
    assert np.array_equal(recoloured(PIXELS, 1.2, 1, 1, 0), np.clip(np.rint(PIXELS * 1.2), 0, 255))
    mean = (PIXELS @ LUMA).mean()
    assert np.abs(recoloured(PIXELS, 1, 0.5, 1, 0) - (mean + 0.5 * (PIXELS - mean))).max() <= 0.5 + 1e-9
    assert np.ptp(recoloured(PIXELS, 1, 0, 1, 0)) == 0


def test_saturation_is_a_mix_with_grey():
    luma = (PIXELS @ LUMA)[..., None]
    assert np.abs(recoloured(PIXELS, 1, 1, 0.3, 0) - (luma + 0.3 * (PIXELS - luma))).max() <= 0.5 + 1e-3
    assert np.ptp(recoloured(PIXELS, 1, 1, 0, 0), axis=-1).max() <= 1


@pytest.mark.parametrize("hue", [0.1, -0.25, 0.5])
def test_hue_turns_the_chroma_as_colorsys_has_it(hue):
    soft = np.random.default_rng(1).integers(110, 146, (6, 6, 3), dtype=np.uint8)
    turned = recoloured(soft, 1, 1, 1, hue).astype(float)
    assert np.abs(turned @ LUMA - soft @ LUMA).max() < 1
    for before, after in zip(soft.reshape(-1, 3) / 255, turned.reshape(-1, 3) / 255, strict=True):
        _, i, q = colorsys.rgb_to_yiq(*before)
        _, i_after, q_after = colorsys.rgb_to_yiq(*after)
        assert complex(i_after, q_after) == pytest.approx(complex(i, q) * np.exp(2j * np.pi * hue), abs=0.006)


def test_greys_have_no_hue_and_no_saturation():
    grey = np.repeat(PIXELS[..., :1], 3, axis=-1)
    assert np.array_equal(recoloured(grey, 1, 1, 1.7, 0.3), grey)


def test_jitter_draws_within_its_strengths_differs_and_repeats():
    flat = np.full((4, 4, 3), 100, np.uint8)
    levels = [int(jitter(flat, (0.2, 0.0, 0.0, 0.0), "hash", number)[0, 0, 0]) for number in range(300)]
    assert 80 <= min(levels) < 84 and 116 < max(levels) <= 120
    assert np.array_equal(jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "a", 1), jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "a", 1))
    assert not np.array_equal(jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "a", 1), jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "a", 2))
    assert not np.array_equal(jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "a", 1), jitter(PIXELS, (0.2, 0.2, 0.2, 0.1), "b", 1))
