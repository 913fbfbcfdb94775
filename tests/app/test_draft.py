"""The recipe being edited: what it began with, what was changed, and what comes back."""

from __future__ import annotations

from app.draft import FIRST, Draft
from trainer import presets


def test_a_new_draft_is_the_first_preset_unchanged(tmp_path):
    draft = Draft(tmp_path / "draft.json")
    assert draft.preset == FIRST and draft.values == presets.load(FIRST) and draft.changes() == {}


def test_changes_are_told_kept_and_taken_back(tmp_path):
    draft = Draft(tmp_path / "draft.json")
    draft.begin(presets.load("pocket-loha"), "pocket-loha")
    draft.put({"train.steps": 30, "loss.min_snr_gamma": 5.0, "optimizer.lr": None})
    other = Draft(tmp_path / "draft.json")
    rate = presets.load("pocket-loha")["optimizer"]["lr"]
    assert other.changes() == {"train.steps": (220, 30), "optimizer.lr": (rate, None), "loss.min_snr_gamma": (None, 5.0)}
    other.reset(["train.steps", "loss.min_snr_gamma", "optimizer.lr"])
    assert draft.changes() == {} and draft.values == presets.load("pocket-loha"), "an empty section does not stay"


def test_two_editors_of_different_settings_do_not_undo_each_other(tmp_path):
    one, other = Draft(tmp_path / "draft.json"), Draft(tmp_path / "draft.json")
    one.put({"train.steps": 30})
    other.put({"optimizer.lr": 1e-3})
    assert one.values["train"]["steps"] == 30 and one.values["optimizer"]["lr"] == 1e-3
