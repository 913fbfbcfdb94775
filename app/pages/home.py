"""The first page: what this machine is, a demo in one click, the way to one's own pictures, and the latest runs."""

from __future__ import annotations

import html
import subprocess
import sys
from functools import cache

import gradio as gr

from app.page import QUIET, WORKING, Page, address, link
from app.parts.status import key
from app.queue import Job
from app.studio import Studio
from app.text import say
from app.watch import View
from trainer import presets
from trainer.presets import ROOT

DEMO = "pocket-lora"
DOCTOR_SECONDS = 120
RECENT = 6
TO_TRAIN = "(name) => { if (name) window.location.href = './train?run=' + encodeURIComponent(name); }"
TO_PICTURES = "() => { window.location.href = './dataset'; }"


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    gr.Markdown(f"# {say('home.title')}\n{say('home.intro')}")
    device = gr.HTML(value=device_line(say("home.looking")))
    with gr.Row(equal_height=True):
        with gr.Column(min_width=280, elem_classes="card"):
            gr.Markdown(f"### {say('home.demo')}\n{say('home.demo_text')}")
            demo = gr.Button(say("home.demo_button"), variant="primary")
        with gr.Column(min_width=280, elem_classes="card"):
            gr.Markdown(f"### {say('home.own')}\n{say('home.own_text')}")
            own = gr.Button(say("home.own_button"))
    recent = gr.HTML(elem_id="recent")
    name = gr.Textbox(visible=False)

    site.load(lambda: device_line(device_text()), outputs=device, **QUIET)
    site.load(lambda: recent_runs(studio), outputs=recent, **QUIET)
    demo.click(lambda: begin(studio), outputs=name, **WORKING).then(None, name, None, js=TO_TRAIN, **QUIET)
    own.click(None, js=TO_PICTURES, **QUIET)


PAGE = Page("", build)


def begin(studio: Studio) -> str:
    """Put the demo into the queue; returns the name of its run."""
    return studio.queue.add(presets.read_text(presets.FOLDER / f"{DEMO}.toml"), DEMO)


def recent_runs(studio: Studio) -> str:
    """The latest runs as cards with a picture, the state, and a link."""
    cards = [card(name, studio.runs.view(name), studio.queue.job(name)) for name in studio.names()[:RECENT]]
    inner = f"<div class='cards'>{''.join(cards)}</div>" if cards else f"<p class='quiet'>{html.escape(say('home.none'))}</p>"
    return f"<h3>{html.escape(say('home.recent'))}</h3>{inner}"


def card(name: str, view: View, job: Job | None = None) -> str:
    """One run, or the job that has none yet. Everything from outside is escaped."""
    picture = view.previews[0] if view.previews else None
    image = f"<img alt='' loading='lazy' src='{html.escape(address(picture))}'>" if picture else "<div class='no-picture'></div>"
    state = key(view, job)
    progress = say("status.step", step=view.step, steps=view.steps) if view.steps else ""
    words = f"<span class='{state}'>{html.escape(say(f'state.{state}'))}</span><span>{html.escape(progress)}</span>"
    return f"<div class='run-card'>{image}<div>{link('train', name, run=name)}{words}</div></div>"


def device_line(text: str) -> str:
    """One quiet line."""
    return f"<div class='quiet'>{html.escape(say('home.device', device=text))}</div>"


@cache
def device_text() -> str:
    """The doctor's first line, from a child process: this one imports no torch."""
    command = [sys.executable, "-m", "trainer", "--doctor"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DOCTOR_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return say("home.no_device")
    first = done.stdout.partition("\n")[0].removeprefix("device").strip()
    return first or say("home.no_device")
