"""Whether a recipe can be trained: what is wrong, what is missing and where it is given, or that nothing is."""

from __future__ import annotations

import pytest

from app.parts.verdict import lacks, verdict


def judged(problem: str = "", missing: tuple = ()) -> dict:
    return {"problem": problem, "missing": missing}


def test_a_whole_recipe_can_run_and_a_wrong_one_says_why():
    assert "note good" in verdict(judged()) and "can run" in verdict(judged())
    assert verdict(judged("a < b", (("base", ""),))) == "<div class='note bad'>a &lt; b</div>"


@pytest.mark.parametrize(("kind", "leads"), [("base", False), ("no_base", False), ("pictures", True), ("no_folder", True)])
def test_what_is_missing_leads_to_where_it_is_given(kind, leads):
    shown = verdict(judged(missing=((kind, "<here>"),)))
    assert "note warn" in shown and "can run" not in shown and ("./dataset" in shown) == leads
    assert ("&lt;here&gt;" in shown) == kind.startswith("no_") and "<here>" not in shown


def test_each_thing_that_is_missing_has_a_sentence():
    assert len(lacks([("base", ""), ("pictures", "")]).splitlines()) == 2 and lacks([]) == ""
