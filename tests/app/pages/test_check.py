"""The dry run's page: what stops, what warns, and text of others as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.desk import Refused
from app.pages import check
from app.studio import Studio
from trainer import presets

FOUND = {
    "rows": [("base model", "<pocket>")],
    "lights": [("good", "memory: 1 MiB needed")],
    "findings": [],
    "rate": [(1, 0.1), (2, 0.2)],
    "timesteps": [(0, 1.0), (999, 1.0)],
}
FAULT = {
    "kind": "warn",
    "pictures": [*"<bcdef"],
    "problem": "<i>blurred</i>",
    "fix": "take <b>it</b> out",
}


def whole(folder: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple = ()) -> Studio:
    """A studio whose recipe lacks no more than ``missing``."""
    studio = Studio(folder)
    monkeypatch.setattr(studio, "judge", lambda: {"problem": "", "missing": missing})
    return studio


@pytest.mark.parametrize(
    ("change", "verdict", "can_start"),
    [
        ({}, "Nothing stands in the way", True),
        ({"lights": [("warn", "note")]}, "There are warnings", True),
        ({"findings": [FAULT]}, "There are warnings", True),
        ({"lights": [("bad", "memory")]}, "cannot be trained", False),
    ],
)
def test_lights_decide(tmp_path, monkeypatch, change, verdict, can_start):
    studio = whole(tmp_path, monkeypatch)
    monkeypatch.setattr(studio, "rehearse", lambda: FOUND | change)
    shown, found = check.answer(studio)
    assert verdict in shown and found == can_start
    assert not any(word in shown for word in ("<pocket>", "<, b", "<i>", "<b>it"))


def test_a_refusal_is_shown_with_its_fix(tmp_path, monkeypatch):
    def refuse() -> None:
        raise Refused("no pictures in <x>\nWhat to do: add some")

    studio = whole(tmp_path, monkeypatch)
    monkeypatch.setattr(studio, "rehearse", refuse)
    shown, can_start = check.answer(studio)
    assert not can_start and "no pictures in &lt;x&gt;" in shown and "add some" in shown


def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    studio = whole(tmp_path, monkeypatch, (("pictures", ""),))
    monkeypatch.setattr(studio, "rehearse", lambda: pytest.fail("it was rehearsed"))
    shown, can_start = check.answer(studio)
    assert not can_start and "No pictures yet" in shown and "./dataset" in shown


def test_many_pictures_of_a_finding_are_counted():
    assert "&lt;, b, c, d (+2): " in check.finding(FAULT) and "the whole set: " in check.finding(FAULT | {"pictures": []})


def test_the_drafts_dry_run_is_made_in_a_process_of_its_own(tmp_path):
    studio = Studio(tmp_path)
    studio.draft.begin(presets.load("pocket-lora"), "pocket-lora")
    studio.draft.put({"device.estimate": False})
    shown, can_start = check.answer(studio)
    assert can_start and "503,424 parameters" in shown and shown.count("<svg") == 2
    assert not list(tmp_path.glob("*/config.toml")), "nothing is written"
