"""The choice of the algorithm as cards: its name, a plain sentence, and what it would be in the recipe at hand.

A card is the label of a radio button: Tab reaches it, Space chooses it, and screen readers read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from app.parts import form
from app.text import has, say

ALGORITHM = "adapter.algorithm"
NEAR = 0.05
"""Difference of a step's time from LoRA's that is none: the cost model is not finer."""
SHOW = """() => {
  const card = document.querySelector('#set-adapter-algorithm label.selected'), box = card && card.parentElement;
  if (!box) return;
  const [frame, place] = [box.getBoundingClientRect(), card.getBoundingClientRect()];
  if (place.top < frame.top || place.bottom > frame.bottom) box.scrollTop += place.top - frame.top - 8;
}"""
"""Scrolls the cards, and nothing else, until the chosen one is seen."""

HARD = "\N{NO-BREAK SPACE}"

Card = Mapping[str, Any]
Choices = list[tuple[str, str]]


def control(row: form.Row) -> gr.Radio:
    """The cards of every algorithm, without numbers yet."""
    info = f"{row['help']} {say('card.source')}"
    return gr.Radio(
        choices(row["choices"], {}), value=row["default"], label=form.label_of(row), info=info, interactive=True,
        elem_id=form.element_id(row), elem_classes="wide",
    )  # fmt: skip


def choices(names: Sequence[str], cards: Mapping[str, Card]) -> Choices:
    """A card for each name, and the name."""
    return [(card(name, cards.get(name)), name) for name in names]


def card(name: str, found: Card | None) -> str:
    """Name, sentence and numbers, a line each."""
    sentence = say(f"algorithm.{name}") if has(f"algorithm.{name}") else ""
    return "\n".join(filter(None, (name, sentence, numbers(found) if found else say("card.unknown"))))


def numbers(found: Card) -> str:
    """``558,720 numbers, file 1.1 MiB, step 1.2 × lora's``, or why there are none."""
    if found["problem"]:
        return say("card.problem", problem=found["problem"])
    size = say("card.no_file") if found["bytes"] is None else say("card.file", size=size_of(found["bytes"]))
    parts = say("card.numbers", count=found["numbers"]), size, time(found["time"])
    return ", ".join(part.replace(" ", HARD) for part in parts)


def size_of(count: int) -> str:
    """Bytes as ``91 KiB``, ``1.1 MiB`` or ``4.1 GiB``."""
    power = 1 + (count >= 1000 * 2**10) + (count >= 1000 * 2**20)
    value = count / 2 ** (10 * power)
    return f"{value:.{int(value < 10)}f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def time(times: float | None) -> str:
    """A step's time beside LoRA's."""
    if times is None:
        return say("card.no_time")
    return say("card.same") if abs(times - 1) <= NEAR else say("card.time", times=times)
