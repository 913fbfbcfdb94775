"""Steps by the number of pictures."""

from __future__ import annotations

import pytest

from trainer import settings
from trainer.config import Config
from trainer.duration import settle_steps, steps_note
from trainer.errors import InputError


def config(**train: int) -> Config:
    return settings.parse({"train": {"steps": 0} | train}, "test")


@pytest.mark.parametrize(("pictures", "steps"), [(1, 800), (10, 800), (20, 1600), (31, 2480), (32, 2500), (500, 2500)])
def test_eighty_a_picture_within_the_bounds(pictures, steps):
    assert settle_steps(config(), pictures).train.steps == steps


@pytest.mark.acts("train.steps", "train.steps_per_picture", "train.steps_min", "train.steps_max")
@pytest.mark.parametrize(
    ("train", "steps"),
    [({"steps_per_picture": 60}, 1200), ({"steps_min": 1700}, 1700), ({"steps_max": 900}, 900), ({"steps": 7}, 7)],
)
def test_each_setting_acts(train, steps):
    assert settle_steps(config(**train), 20).train.steps == steps


def test_settled_settings_are_complete_and_settle_to_themselves():
    settled = settle_steps(config(steps_max=900), 20)
    again = settings.parse(settings.to_values(settled), "recipe")
    assert settle_steps(again, 3) == again and again.train.steps == 900


def test_the_plan_says_how():
    asked = config(steps_max=1600).train
    assert steps_note(asked, 1600, 24) == ["train.steps = 0: 80 x 24 pictures, within 800 to 1600, makes 1600 steps."]
    given = config(steps=500, steps_max=1600).train
    assert steps_note(given, 500, 24) == ["train.steps = 500 is given: train.steps_max does not act."]
    assert steps_note(config(steps=500).train, 500, 24) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": {"warmup": 800}}, "must be less than the 800 steps"),
        ({"train": {"steps_min": 3000}}, "steps_min .3000. is more"),
    ],
)
def test_what_cannot_be_is_refused(values, words):
    values = {"train": {"steps": 0} | values.get("train", {}), "optimizer": values.get("optimizer", {})}
    with pytest.raises(InputError, match=words):
        settle_steps(settings.parse(values, "test"), 1)
