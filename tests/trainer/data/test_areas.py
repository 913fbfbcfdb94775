"""Area means against plain averages and against a fine grid."""

import numpy as np
import pytest

from trainer.data.areas import area_means

VALUES = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)


def test_whole_cells_are_plain_averages():
    expected = VALUES.reshape(3, 8, 5, 8).mean((1, 3))
    assert area_means(VALUES, (0, 0, 40, 24), (5, 3)) == pytest.approx(expected)
    assert area_means(VALUES, (8, 0, 24, 16), (2, 2)) == pytest.approx(expected[:2, 1:3])


def test_parts_of_pixels_count_by_their_share():
    fine = np.repeat(np.repeat(VALUES, 10, 0), 10, 1)
    box = (3.5, 1.2, 33.5, 21.2)
    expected = fine[12:212, 35:335].reshape(4, 50, 6, 50).mean((1, 3))
    assert area_means(VALUES, box, (6, 4)) == pytest.approx(expected, rel=1e-6)


def test_the_mean_over_all_cells_is_the_mean_of_the_box():
    means = area_means(VALUES, (0, 0, 40, 24), (7, 5))
    assert means.mean() == pytest.approx(VALUES.mean(), rel=1e-5)
    assert area_means(np.full((9, 9), 255, np.uint8), (0.3, 0.3, 8.7, 8.7), (4, 4)) == pytest.approx(np.full((4, 4), 255.0))


def test_cells_smaller_than_pixels_repeat_them():
    assert area_means(VALUES[:2, :2], (0, 0, 2, 2), (4, 4)) == pytest.approx(np.repeat(np.repeat(VALUES[:2, :2], 2, 0), 2, 1))
