"""Samples: every prompt over the steps, from the base model on; two of them under one slider; the file at several strengths."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Refused
from app.page import QUIET, WORKING, Page, asked_run, note
from app.parts.strip import Row, grid, strip
from app.studio import Studio
from app.text import say
from app.watch import Samples

STRENGTHS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
"""At which the file is drawn; the slider stops at each."""
MOST_STEPS = 12
"""Columns of the grid: evenly chosen steps, always with the first and the last."""


class SamplesPage:
    """The components and what they do."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        self.run = gr.Dropdown(choices=[], label=say("samples.run"), interactive=True, elem_id="run")
        self.grid = gr.HTML(padding=False, elem_id="grid")
        with gr.Row(visible=False) as self.beside:
            with gr.Column(min_width=320):
                self.prompt = gr.Dropdown(choices=[], label=say("samples.prompt"), interactive=True, elem_id="prompt")
                self.slider = gr.ImageSlider(label=say("samples.slider"), interactive=False, elem_id="slider", buttons=[])
            with gr.Column(min_width=320):
                self.strength = gr.Slider(
                    STRENGTHS[0], STRENGTHS[-1], value=1.0, step=STRENGTHS[1], label=say("samples.strength"), elem_id="strength"
                )
                self.render = gr.Button(say("samples.render"), size="sm", elem_id="render")
                self.at = gr.HTML(padding=False, elem_id="at-strength")
        self._connect(site)

    def _connect(self, site: gr.Blocks) -> None:
        live = [self.run, self.grid, self.prompt, self.slider, self.at, self.beside]
        site.load(self.enter, outputs=live, **WORKING)
        self.run.input(lambda name: self.show(name), self.run, live, **WORKING)
        self.prompt.input(self.pair, [self.run, self.prompt], self.slider, **QUIET)
        self.strength.change(self.shown_at, [self.run, self.strength], self.at, trigger_mode="always_last", **QUIET)
        self.render.click(self.draw, [self.run, self.strength], self.at, concurrency_limit=1, **WORKING)

    def enter(self, request: gr.Request) -> list[Any]:
        """The run that the address names, or the newest that has samples."""
        return self.show(asked_run(request))

    def show(self, name: str | None) -> list[Any]:
        """A run's samples."""
        names = [each for each in self.studio.runs.names() if self.studio.runs.has_samples(each)]
        name = name if name in names else next(iter(names), None)
        found = self.studio.runs.samples(name)
        choices = [(prompt, number) for number, prompt in enumerate(found.names)]
        return [
            gr.update(choices=names, value=name),
            over_steps(found) if found.steps else note(say("samples.none")),
            gr.update(choices=choices, value=0 if choices else None),
            gr.update(value=first_and_last(found, 0)),
            self.shown_at(name, 1.0),
            gr.update(visible=bool(found.steps)),
        ]

    def pair(self, name: str | None, number: int | None) -> Any:
        """The base model's picture and the newest one of a prompt."""
        return gr.update(value=first_and_last(self.studio.runs.samples(name), number or 0))

    def shown_at(self, name: str | None, strength: float) -> str:
        """The pictures that were drawn at a strength, or how to get them."""
        run = self.studio.runs.folder(name)
        if run is None:
            return ""
        prompts = self.studio.runs.samples(name).names
        files = [run.strength_file(strength, number) for number in range(len(prompts))]
        if not files or not all(file.is_file() for file in files):
            return note(say("samples.not_drawn"))
        old = "" if run.is_drawn_of_present_file() else note(say("samples.of_earlier_file"), "warn")
        return f"{old}<b>{html.escape(say('samples.at', strength=strength))}</b>{strip(list(zip(prompts, files, strict=True)))}"

    def draw(self, name: str | None, strength: float) -> str:
        """Draw the file at all strengths, and show one."""
        run = self.studio.runs.folder(name)
        if run is None:
            return ""
        try:
            self.studio.apart("render_strengths", str(run.path), self.studio.runs.samples(name).names, STRENGTHS)
        except Refused as error:
            return note(str(error), "bad")
        return self.shown_at(name, strength)


def over_steps(found: Samples) -> str:
    """A row for each prompt, a column for each step."""
    shown = chosen(found.steps)
    columns = [say("samples.base") if step == 0 else say("samples.step", step=step) for step, _ in shown]
    rows = [Row(prompt, [at(files, number) for _, files in shown]) for number, prompt in enumerate(found.names)]
    return f"<h3>{html.escape(say('samples.grid'))}</h3>{grid(columns, rows)}"


def chosen(samples: tuple[tuple[int, tuple[Path | None, ...]], ...]) -> list[tuple[int, tuple[Path | None, ...]]]:
    """At most ``MOST_STEPS`` of them, evenly, with the first and the last."""
    if len(samples) <= MOST_STEPS:
        return list(samples)
    places = {round(number * (len(samples) - 1) / (MOST_STEPS - 1)) for number in range(MOST_STEPS)}
    return [samples[place] for place in sorted(places)]


def first_and_last(found: Samples, number: int) -> tuple[str, str] | None:
    """Files of a prompt at the first step and the last."""
    pair = [at(files, number) for _, files in (found.steps[:1] + found.steps[-1:])]
    return (str(pair[0]), str(pair[-1])) if pair and all(pair) else None


def at(files: tuple[Path | None, ...], number: int) -> Path | None:
    """A step's picture of a prompt, where it is there."""
    return files[number] if number < len(files) else None


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    SamplesPage(studio, site)


PAGE = Page("samples", build)
