"""Every rule on faults put into clean pictures: it finds nine of ten and is right nine times of ten."""

from __future__ import annotations

import pytest

from bench.lint.score import CLEAN, Score, scenes, score
from trainer.lint.registry import RULES


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    return score(scenes())


@pytest.mark.parametrize("rule", RULES)
def test_precision_and_recall(scores, rule):
    one = scores[rule]
    assert one.faults and one.recall >= 0.9, one.strengths
    assert one.precision >= 0.9, one.alarms


@pytest.mark.parametrize("rule", RULES)
def test_every_strength_is_found_more_often_than_not(scores, rule):
    assert not {strength: pair for strength, pair in scores[rule].strengths.items() if 2 * pair[1] <= pair[0]}


@pytest.mark.parametrize("rule", RULES)
def test_the_shipped_pictures_are_clean(scores, rule):
    shipped = {f"{CLEAN}: {name}" for name in ("blueprint", "duotone", "ink")}
    assert not shipped & {scene for scene, _ in scores[rule].alarms.values()}
