"""The dry run: what the recipe would train, whether there is room, what is wrong with pictures and captions, and what to do."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from app.desk import Refused
from app.page import QUIET, WORKING, Page, note
from app.pages.home import TO_TRAIN
from app.parts.chart import Series, chart
from app.parts.facts import facts
from app.parts.verdict import verdict
from app.studio import Studio
from app.text import say

ASKED = "now"
"""In the address: look at once. Without it a press is needed: a look loads the base model, beside a run that may be training."""
SHOWN_PICTURES = 4
"""Names of pictures in a finding; the others are counted."""


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    gr.Markdown(say("check.intro"))
    with gr.Row():
        look = gr.Button(say("check.look"), variant="primary", elem_id="look")
        start = gr.Button(say("check.start"), interactive=False, elem_id="start")
    found = gr.HTML(padding=False, elem_id="found")
    started = gr.Textbox(visible=False)

    def rehearse() -> list[Any]:
        shown, can_start = answer(studio)
        return [shown, gr.update(interactive=can_start, variant="primary" if can_start else "secondary")]

    def enter(request: gr.Request) -> list[Any]:
        return rehearse() if request.query_params.get(ASKED) else [gr.skip(), gr.skip()]

    one_by_one: dict[str, Any] = {"concurrency_id": "rehearsal", "concurrency_limit": 1}
    site.load(enter, outputs=[found, start], **WORKING, **one_by_one)
    look.click(rehearse, outputs=[found, start], **WORKING, **one_by_one)
    start.click(studio.start_draft, outputs=started, **QUIET).then(None, started, None, js=TO_TRAIN, **QUIET)


PAGE = Page("check", build)


def answer(studio: Studio) -> tuple[str, bool]:
    """The page's HTML, and whether the recipe can be started."""
    judged = studio.judge()
    if judged["missing"]:
        return verdict(judged), False
    try:
        found = studio.rehearse()
    except Refused as error:
        return note(f"{say('check.cannot')}\n{error}", "bad"), False
    kinds = [kind for kind, _ in found["lights"]] + [finding["kind"] for finding in found["findings"]]
    stops = any(kind == "bad" for kind, _ in found["lights"])
    told = note(say("check.cannot"), "bad") if stops else note(say("check.look_first"), "warn")
    if set(kinds) <= {"good"}:
        told = note(say("check.ready"), "good")
    parts = [told, statement(found["rows"]), remarks(found["lights"]), findings(found["findings"]), curves(found)]
    return "".join(parts), not stops


def statement(rows: list[tuple[str, str]]) -> str:
    """What will be trained, as a table of two columns."""
    return f"<h3>{html.escape(say('check.statement'))}</h3>{facts(rows)}"


def remarks(lights: list[tuple[str, str]]) -> str:
    """Room, and the consequences that one should know."""
    return f"<h3>{html.escape(say('check.remarks'))}</h3>{''.join(note(text, kind) for kind, text in lights)}" if lights else ""


def findings(found: list[dict[str, Any]]) -> str:
    """What the lint says, each with its pictures and what to do."""
    if not found:
        return note(say("check.none"), "good")
    return f"<h3>{html.escape(say('check.findings'))}</h3>{''.join(finding(each) for each in found)}"


def finding(found: dict[str, Any]) -> str:
    """One fault."""
    names = [*found["pictures"][:SHOWN_PICTURES]]
    more = len(found["pictures"]) - len(names)
    where = (", ".join(names) + f" (+{more})" * (more > 0)) or say("check.the_set")
    return note(f"{where}: {found['problem']}\n{say('check.fix', fix=found['fix'])}", found["kind"])


def curves(found: dict[str, Any]) -> str:
    """The learning rate over the steps, and how often each timestep is drawn."""
    rate = chart([Series("", found["rate"])], say("train.step"), say("check.rate"), from_zero=True)
    drawn = chart([Series("", found["timesteps"])], say("check.timestep"), say("check.timesteps"), from_zero=True)
    return f"<div class='charts'>{rate}{drawn}</div>"
