"""What the browser asks: the schema as rows, a recipe judged, another algorithm."""

from __future__ import annotations

import json

import pytest

from morelora import ALGORITHMS
from trainer import answers, presets, settings
from trainer.schema import walk


def test_every_setting_is_a_row_of_plain_values():
    rows = answers.schema()
    assert [row["path"] for row in rows] == [setting.path for setting in walk()]
    assert json.loads(json.dumps(rows)) == rows
    assert {row["kind"] for row in rows} <= {"choice", "flag", "list", "table", "int", "float", "text"}


def test_the_toml_of_a_judged_recipe_is_the_same_recipe():
    values = presets.load("pocket-loha")
    judged = answers.check(values)
    assert settings.parse(presets.read_toml(judged["toml"], "x"), "x") == settings.parse(values, "x")
    assert judged["whole"]["adapter"]["algorithm"] == "loha" and "train.ema_decay" not in judged["whole"]


def test_refusals_are_told_and_programming_errors_are_not_swallowed():
    refused, reason = answers.answer("preset", ("nothing",))
    assert refused and "there is no preset" in reason
    with pytest.raises(TypeError):
        answers.answer("preset", ())


@pytest.mark.parametrize("question", answers.LATER)
def test_a_question_whose_module_comes_later_has_an_answer(question):
    assert answers.asked(question).__module__ == answers.LATER[question]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", ["pocket-hadamard", "sd15-lora"])
def test_another_algorithm_gives_a_recipe_that_can_be_used(preset, algorithm):
    values = presets.load(preset)
    changed = answers.with_algorithm(values, preset, algorithm)
    config = settings.parse(changed, "x")
    assert config.adapter.algorithm == algorithm
    assert [changed.get(name) for name in ("data", "model", "train")] == [values.get(name) for name in ("data", "model", "train")]


def test_the_sister_preset_gives_adapter_and_rate():
    changed = answers.with_algorithm(presets.load("pocket-lora"), "pocket-lora", "oft")
    sister = presets.load("pocket-oft")
    assert changed["adapter"] == sister["adapter"] and changed["optimizer"]["lr"] == sister["optimizer"]["lr"]
