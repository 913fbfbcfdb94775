"""Connected components against a flood fill, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.lint.components import components


def flood(mask):
    """Bounding box (left, top, right, bottom) and area of each component, by walking."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        todo, seen = [left.pop()], []
        while todo:
            y, x = todo.pop()
            seen.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        ys, xs = zip(*seen, strict=True)
        found.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1, len(seen)))
    return sorted(found)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (37, 53)])
def test_boxes_and_areas(share, shape):
    mask = np.random.default_rng(3).random(shape) < share
    found = components(mask)
    rows = zip(found.left, found.top, found.right, found.bottom, found.area, strict=True)
    assert sorted(tuple(int(v) for v in row) for row in rows) == flood(mask)


def test_runs_are_the_stretches_in_rows():
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], bool)
    found = components(mask)
    assert found.runs.tolist() == [5] and found.area.tolist() == [9]
    assert (found.width.tolist(), found.height.tolist()) == ([4], [3])
