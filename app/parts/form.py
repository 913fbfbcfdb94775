"""Controls made from the schema's rows, and what they show: value, visibility, a mark where a value was changed.

A control's event says which values were changed by comparing with what this tab was shown, so two tabs do not undo each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from app.text import has, say

MARK = "● "
"""Before the label of a changed setting."""
WHOLE_LIMIT = 2**53
FLAG = ("yes", "no")
"""How a flag that may also be left open is chosen."""

Row = Mapping[str, Any]
Update = dict[str, Any]


def label_of(row: Row) -> str:
    """The text's own name of a setting, or that of its path in words, with the unit."""
    key = f"label.{row['path']}"
    name = say(key) if has(key) else row["path"].rpartition(".")[2].replace("_", " ").capitalize()
    unit = say(f"unit.{row['unit']}") if row["unit"] else ""
    return f"{name} ({unit})" if unit and unit.lower() != name.lower() else name


def element_id(row: Row) -> str:
    """What a setting's control is called in the page: ``set-train-steps``."""
    return "-".join(["set", *row["path"].split("."), *row["algorithms"][:1]])


def control(row: Row, visible: bool) -> Any:
    """The component of a setting, without its value."""
    common: dict[str, Any] = {"label": label_of(row), "info": row["help"], "visible": visible, "interactive": True}
    common["elem_id"] = element_id(row)
    if row["kind"] == "choice":
        choices = [("–", ""), *((word, word) for word in row["choices"])] if row["may_be_empty"] else list(row["choices"])
        return gr.Dropdown(
            choices, value=shown(row, row["default"]), allow_custom_value=row["path"] == "optimizer.name", **common
        )
    if is_three_way(row):
        return gr.Dropdown([("–", ""), *((say(f"form.{word}"), word) for word in FLAG)], value="", **common)
    if row["kind"] == "flag":
        return gr.Checkbox(value=row["default"], **common)
    if row["kind"] in ("int", "float"):
        whole = row["kind"] == "int"
        return gr.Number(value=row["default"], precision=0 if whole else None, step=1 if whole else 0.1, **common)
    if row["kind"] == "texts":
        return gr.Textbox(value=shown(row, row["default"]), lines=3, max_lines=8, elem_classes="wide", **common)
    return gr.Textbox(value=shown(row, row["default"]), lines=1, max_lines=4, **common)


def is_three_way(row: Row) -> bool:
    """Whether it is yes, no, or left to the trainer."""
    return row["kind"] == "flag" and row["may_be_empty"] and row["default"] is None


def shown(row: Row, value: Any) -> Any:
    """A setting's value as its control holds it. A list of texts is a text a line where that can be read back; other lists and
    tables are written as JSON, which TOML's own lists look like."""
    if row["kind"] == "texts" and all(text == text.strip() != "" and len(text.splitlines()) == 1 for text in value or ()):
        return "\n".join(value or ())
    if row["kind"] in ("texts", "list", "table"):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if is_three_way(row):
        return "" if value is None else FLAG[not value]
    if row["kind"] in ("text", "choice"):
        return "" if value is None else value
    return value


def given(row: Row, value: Any) -> Any:
    """What a control holds as the setting's value; None where it was emptied. Raises ``ValueError`` with what to write."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if row["kind"] == "texts":
        return texts(value)
    if row["kind"] in ("list", "table"):
        try:
            return json.loads(value)
        except ValueError as error:
            form = '["first", "second"]' if row["kind"] == "list" else '{"name": 1.5}'
            raise ValueError(say("form.not_json", label=label_of(row), form=form)) from error
    if is_three_way(row):
        return value == FLAG[0]
    if row["kind"] == "int" and not (math.isfinite(value) and abs(value) < WHOLE_LIMIT):
        raise ValueError(say("form.not_a_number", label=label_of(row)))
    return int(value) if row["kind"] == "int" else value


def texts(written: str) -> list[str]:
    """A text from each line that is not empty; or, where they are written so, from a list in JSON."""
    try:
        found = json.loads(written)
    except ValueError:
        found = None
    if isinstance(found, list) and all(isinstance(text, str) for text in found):
        return found
    return [line.strip() for line in written.splitlines() if line.strip()]


def changed(rows: Sequence[Row], before: Sequence[Any], now: Sequence[Any]) -> dict[str, Any]:
    """Settings whose control shows another value than before, by path. Raises ``ValueError``."""
    pairs = zip(rows, before, now, strict=True)
    return {row["path"]: given(row, new) for row, old, new in pairs if not same(old, new)}


def same(one: Any, other: Any) -> bool:
    """Equal, where an empty control may be None or ''."""
    return (one or None) == (other or None) if isinstance(one, str) or isinstance(other, str) else one == other


def current(rows: Iterable[Row], whole: Mapping[str, Any]) -> list[Any]:
    """What every control is to show of whole, checked values; its default where a setting is not among them."""
    found = []
    for row in rows:
        section, _, name = row["path"].partition(".")
        found.append(shown(row, whole.get(section, {}).get(name, row["default"])))
    return found


def is_relevant(row: Row, algorithm: str, no_effect: Mapping[str, str]) -> bool:
    """Whether the setting does something in this recipe."""
    return row["path"] not in no_effect and (not row["algorithms"] or algorithm in row["algorithms"])


def matches(row: Row, search: str) -> bool:
    """Whether every word searched for is in the setting's path, label or help."""
    text = f"{row['path']} {label_of(row)} {row['help']}".lower()
    return all(word in text for word in search.lower().split())


def update(row: Row, value: Any, visible: bool, is_changed: bool) -> Update:
    """A control's new properties."""
    return {"value": value, "visible": visible, "label": MARK * is_changed + label_of(row)}
