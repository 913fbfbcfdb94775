"""Texts: English is whole, a key that does not exist is an error, and other languages only say what English says."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

from app import text
from app.pages import PAGES
from app.text import Language, catalogue, has, languages, say
from trainer import answers

FILES = sorted(Path(text.__file__).parents[1].rglob("*.py"))


def keys_in(file: Path) -> list[str]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say"]
    return [node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)]


def test_every_key_that_the_pages_use_is_there_and_no_other():
    used = {key for file in FILES for key in keys_in(file)}
    assert used <= catalogue("en").keys()
    families = ("state.", "section.", "label.", "runs.column.", "runs.act.", "export.keep.", "export.line.")
    families += ("tryit.state.", "tryit.stage.", "unit.", "recipe.missing.", "algorithm.")
    families += ("inspect.path.", "inspect.fact.", "inspect.fault.", "inspect.form.", "inspect.act.", "inspect.act_text.")
    families += ("form.yes", "form.no", "dataset.leave_out", "dataset.write")
    unused = {key for key in catalogue("en").keys() - used if not key.startswith(families) and not key.endswith(".name")}
    assert not unused


def test_pages_sections_and_labels_have_their_texts():
    assert all(page.name for page in PAGES)
    paths = {row["path"] for row in answers.schema()}
    assert all(has(f"section.{path.partition('.')[0]}") for path in paths)
    assert {key.removeprefix("label.") for key in catalogue("en") if key.startswith("label.")} <= paths
    units = {row["unit"] for row in answers.schema()} - {""}
    assert units == {key.removeprefix("unit.") for key in catalogue("en") if key.startswith("unit.")}


@pytest.mark.parametrize("language", languages())
def test_a_language_says_only_what_english_says_with_the_same_values(language):
    for key, found in catalogue(language).items():
        assert fields(found) == fields(catalogue("en")[key]), key


def fields(found: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(found)} - {None}


def test_what_a_language_lacks_is_said_in_english(monkeypatch, tmp_path):
    (tmp_path / "xx.toml").write_text('[home]\nname = "Zuhause"\n')
    (tmp_path / "en.toml").write_text('[home]\nname = "Home"\nnone = "Nothing, {who}"\n')
    monkeypatch.setattr(text, "FOLDER", tmp_path)
    monkeypatch.setattr(Language, "chosen", "xx")
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    catalogue.cache_clear()
    assert (say("home.name"), say("home.none", who="Anna"), text.usual()) == ("Zuhause", "Nothing, Anna", "xx")
    with pytest.raises(KeyError):
        say("home.missing")
    monkeypatch.undo()
    catalogue.cache_clear()
