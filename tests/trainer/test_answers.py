"""What the browser asks: the schema as rows, a recipe judged."""

from __future__ import annotations

import json

import pytest

from trainer import answers, presets, settings
from trainer.models.registry import POCKET
from trainer.schema import walk


def test_every_setting_is_a_row_of_plain_values():
    rows = answers.schema()
    assert [row["path"] for row in rows] == [setting.path for setting in walk()]
    assert json.loads(json.dumps(rows)) == rows
    assert {row["kind"] for row in rows} <= {"choice", "flag", "texts", "list", "table", "int", "float", "text"}


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


def test_what_is_missing_is_said(tmp_path):
    folder, base = tmp_path / "pictures", str(POCKET)
    there, gone = {"path": str(tmp_path)}, {"path": "gone"}
    cases = [
        ("", {}, [("base", ""), ("pictures", "")]),
        ("pocket", {"images": str(folder)}, [("no_folder", str(folder))]),
        (str(folder), {"images": str(tmp_path)}, [("no_base", str(folder))]),
        (base, {"sources": [there, gone]}, [("no_folder", "gone")]),
        (base, {"images": str(tmp_path)}, []),
    ]
    for given, data, missing in cases:
        judged = answers.check({"model": {"base": given}, "data": data})
        assert (judged["problem"], judged["missing"]) == ("", missing)
    assert answers.check({"train": {"steps": -3}})["missing"] == []
