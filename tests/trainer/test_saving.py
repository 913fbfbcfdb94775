"""After which steps a run saves, against counting by hand."""

from __future__ import annotations

import pytest

from trainer.saving import Saving


@pytest.mark.parametrize(
    ("saving", "steps"),
    [
        (Saving(10, 4, 0, 1, 5), [4, 8, 10]),
        (Saving(8, 4, 0, 1, 5), [4, 8]),
        (Saving(10, 0, 0, 1, 5), [10]),
        (Saving(10, 0, 1, 1, 3), [3, 6, 9, 10]),
        (Saving(12, 4, 2, 1, 2), [4, 8, 12]),  # both fall together: each counts once
        (Saving(6, 2, 3, 2, 2), [2, 3, 4, 6]),
        (Saving(6, 0, 1, 3, 2), [1, 2, 3, 4, 5, 6]),  # a step longer than an epoch
        (Saving(6, 0, 2, 3, 2), [2, 3, 4, 6]),
    ],
)
def test_due_steps_and_their_number(saving, steps):
    due = [step for step in range(1, saving.steps + 1) if saving.is_due(step) or step == saving.steps]
    assert due == steps and saving.count() == len(steps)
