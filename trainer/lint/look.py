"""Rule ``outlier``: a picture whose colours or lines are far from what the set has in common.

Each of the statistics of ``measure`` is compared with the set's: ``(x - median) / max(1.4826 MAD, floor)``. The floors keep a
very even set from calling every small difference an outlier. Fewer than ``FEWEST`` pictures have nothing in common yet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import grey, within
from trainer.lint.view import View

STATISTICS = (
    "brightness", "contrast", "red against green", "yellow against blue", "colourfulness", "edges", "plain areas",
)  # fmt: skip
FLOORS = np.array([12.0, 8.0, 6.0, 6.0, 6.0, 0.03, 0.06])
FAR = 5.0
"""Robust deviations of the farthest statistic."""
FEWEST = 6
LONELY = 2
"""Pictures that may share what makes them far, or a tenth of the set where that is more: from then on it is a part of the set."""
WORKING = 192


def measure(pixels: Pixels) -> NDArray[np.float64]:
    """The statistics of one picture, in the order of ``STATISTICS``."""
    small = within(pixels, WORKING)
    light, colour = grey(small), small.astype(np.float64)
    red_green = colour[..., 0] - colour[..., 1]
    yellow_blue = (colour[..., 0] + colour[..., 1]) / 2 - colour[..., 2]
    colourful = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    slope = np.hypot(np.diff(light, axis=0)[:, :-1], np.diff(light, axis=1)[:-1])
    return np.array([
        light.mean(), light.std(), red_green.mean(), yellow_blue.mean(), colourful, (slope > 24).mean(), (slope < 2).mean(),
    ])  # fmt: skip


def outlier(view: View) -> Iterator[Finding]:
    """Pictures that do not look like the others."""
    if len(view.pictures) < FEWEST:
        return
    values = np.array([picture.measures.look for picture in view.pictures])
    middle = np.median(values, 0)
    spread = np.maximum(1.4826 * np.median(np.abs(values - middle), 0), FLOORS)
    away = (values - middle) / spread
    crowded = [(side >= FAR / 2).sum(0) > max(LONELY, len(values) // 10) for side in (away, -away)]
    away = np.where((away > 0) & crowded[0] | (away < 0) & crowded[1], 0, np.abs(away))
    for picture, value, far in zip(view.pictures, values, away, strict=True):
        worst = int(far.argmax())
        if far[worst] >= FAR:
            problem = (
                f"its {STATISTICS[worst]} is {value[worst]:.3g}, the set's median {middle[worst]:.3g} "
                f"({far[worst]:.0f} deviations away): it does not look like the others"
            )
            yield Finding("outlier", Severity.WARNING, (picture.name,), problem, "take it out unless it shows the same style")
