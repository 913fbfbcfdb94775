"""Controls from the schema: every kind there and back, for every setting's default."""

from __future__ import annotations

import gradio as gr
import pytest

from app.parts import form
from trainer import answers

ROWS = answers.schema()


def row(kind: str, default: object = None, **more: object) -> dict[str, object]:
    plain = {"path": "train.x", "unit": "", "help": "", "choices": [], "algorithms": [], "may_be_empty": default in (None, "")}
    return plain | {"kind": kind, "default": default} | more


def test_every_setting_has_a_control_that_holds_its_default():
    with gr.Blocks():
        for each in ROWS:
            control = form.control(each, visible=True)
            assert control.label and (control.info or each["path"] == ""), each["path"]
            assert form.same(control.value, form.shown(each, each["default"])), each["path"]


@pytest.mark.parametrize(
    ("each", "value", "shown"),
    [
        (row("int", 8), 16, 16),
        (row("float", 0.1), 1e-6, 1e-6),
        (row("flag", False), True, True),
        (row("flag", None), None, ""),
        (row("flag", None), True, "yes"),
        (row("flag", None), False, "no"),
        (row("text", ""), "a b", "a b"),
        (row("choice", "a", choices=["a", "b"]), "b", "b"),
        (row("list", []), ["a", "ü"], '["a", "ü"]'),
        (row("texts", []), ["a fox", "{trigger}, [b]"], "a fox\n{trigger}, [b]"),
        (row("texts", []), ["", "two\nlines"], '["", "two\\nlines"]'),
        (row("table", {}), {"a": 1.5}, '{"a": 1.5}'),
    ],
)
def test_values_go_there_and_back(each, value, shown):
    assert form.shown(each, value) == shown
    assert form.given(each, shown) == value


def test_a_text_a_line_needs_no_brackets_and_may_have_them():
    each = row("texts", [])
    assert form.given(each, "[a fox:1.2]\n\n  a boat \n") == ["[a fox:1.2]", "a boat"]
    assert form.given(each, '["a", "b"]') == ["a", "b"] and form.given(each, "[1, 2]") == ["[1, 2]"]
    assert form.given(each, " \n ") is None and form.shown(each, None) == form.shown(each, []) == ""


def test_a_unit_that_is_the_name_is_said_once():
    assert form.label_of(row("int", 8, path="train.steps", unit="steps")) == "Steps"
    assert form.label_of(row("int", 8, path="data.resolution", unit="pixels")) == "Resolution (pixels)"


def test_what_cannot_be_read_is_told_with_the_way_to_write_it():
    with pytest.raises(ValueError, match='X: write it as \\["first"'):
        form.given(row("list"), "a, b")
    with pytest.raises(ValueError, match="X: this is not a number"):
        form.given(row("int"), float("inf"))


def test_only_controls_that_show_something_else_count_as_changed():
    rows = [row("int", 8, path="a.x"), row("text", "", path="a.y"), row("text", "", path="a.z"), row("float", 1.0, path="a.w")]
    assert form.changed(rows, [8, "", "old", 1.0], [9, None, " ", 1.0]) == {"a.x": 9, "a.z": None}


def test_a_setting_is_found_by_words_of_its_path_label_or_help():
    gamma = next(each for each in ROWS if each["path"] == "loss.min_snr_gamma")
    assert form.matches(gamma, "") and form.matches(gamma, "SNR gamma") and not form.matches(gamma, "gamma zebra")


def test_options_of_other_algorithms_and_what_has_no_effect_are_not_relevant():
    each = row("int", algorithms=["loha"])
    assert form.is_relevant(each, "loha", {}) and not form.is_relevant(each, "lora", {})
    assert not form.is_relevant(each, "loha", {"train.x": "has no effect"})
