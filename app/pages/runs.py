"""Runs: the queue with its order, every run with what it was, and two to four of them beside each other."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.page import QUIET, WORKING, Page, link, note
from app.pages.samples import at
from app.parts.chart import Series, chart
from app.parts.status import cannot_start
from app.parts.strip import Row, grid
from app.studio import Studio
from app.text import say
from app.watch import Samples, View
from trainer import presets
from trainer.errors import InputError
from trainer.trigger import PLACE, put_in, take_out

MOST_COMPARED = 4
OWN = ("run.name", "run.output")
"""Settings in which every two runs may differ."""
REFRESH_SECONDS = 3.0
TO_RECIPE = "(ok) => { if (ok) window.location.href = './recipe'; }"

Values = dict[str, Any]


class RunsPage:
    """The components and what they do."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        with gr.Accordion(say("runs.queue"), open=True):
            self.queue = gr.HTML(padding=False, elem_id="queue")
            with gr.Column(visible=False) as self.jobs:
                self.job = gr.Dropdown(choices=[], label=say("runs.job"), interactive=True, elem_id="job")
                with gr.Row():
                    self.up, self.down, self.out, self.again = map(act_button, ("up", "down", "out", "again"))
            self.pause = act_button("pause")
        self.search = gr.Textbox(label=say("runs.search"), elem_id="search")
        self.table = gr.HTML(padding=False, elem_id="runs")
        with gr.Row(elem_classes="own"):
            self.compared = gr.Dropdown(
                choices=[], multiselect=True, max_choices=MOST_COMPARED, label=say("runs.compared"), interactive=True,
                scale=3, elem_id="compared",
            )  # fmt: skip
            self.clone = gr.Button(say("runs.clone"), size="sm", elem_id="clone")
        self.cloned = gr.Textbox(visible=False)
        self.comparison = gr.HTML(note(say("runs.choose")), padding=False, elem_id="comparison")
        self._connect(site)

    def _connect(self, site: gr.Blocks) -> None:
        live = [self.queue, self.job, self.pause, self.table, self.jobs, self.compared]
        site.load(self.show, [self.search, self.job], live, **WORKING)
        self.search.input(self.show, [self.search, self.job], live, trigger_mode="always_last", **QUIET)
        gr.Timer(REFRESH_SECONDS).tick(self.refresh, [self.search, self.job], live[:5], **QUIET)
        queue = self.studio.queue
        for button, act in (
            (self.up, lambda name: queue.move(name, -1)), (self.down, lambda name: queue.move(name, 1)),
            (self.out, queue.remove), (self.again, queue.resume),
        ):  # fmt: skip
            button.click(act, self.job, None, **QUIET).then(self.show, [self.search, self.job], live, **QUIET)
        self.pause.click(lambda: queue.pause(not queue.is_paused), outputs=None, **QUIET).then(
            self.show, [self.search, self.job], live, **QUIET
        )
        self.compared.change(self.compare, self.compared, self.comparison, **QUIET)
        self.clone.click(self.take, self.compared, self.cloned, **QUIET).then(None, self.cloned, None, js=TO_RECIPE, **QUIET)

    def show(self, search: str, job: str | None) -> list[Any]:
        """Queue and runs as they are, and what can be compared."""
        return [*self.refresh(search, job), gr.update(choices=self.studio.runs.names())]

    def refresh(self, search: str, job: str | None) -> list[Any]:
        """Queue and runs as they are."""
        known, is_paused = self.studio.queue.jobs(), self.studio.queue.is_paused
        jobs = [each for each in known if each.waits or each.lives()]
        ended = [each.name for each in known if each not in jobs]
        lines = [(each.name, say("state.waiting") if each.waits else say("state.running")) for each in jobs]
        names = [each.name for each in jobs] + ended
        hindered = cannot_start(self.studio.queue) + (note(say("runs.paused"), "warn") if is_paused else "")
        return [
            hindered + (table(lines) if lines else note(say("runs.empty"))),
            gr.update(choices=names, value=job if job in names else next(iter(names), None)),
            gr.update(value=say(f"runs.act.{'go_on' if is_paused else 'pause'}")),
            self.listed(search),
            gr.update(visible=bool(names)),
        ]

    def listed(self, search: str) -> str:
        """Every run that has all words of ``search`` in its name or its recipe."""
        rows, known = [], self.studio.runs.names()
        for name in known:
            view, recipe = self.studio.runs.view(name), self.studio.runs.recipe(name)
            text = f"{name} {view.state} {' '.join(map(str, recipe.values()))}".lower()
            if all(word in text for word in search.lower().split()):
                rows.append(row(name, view, recipe))
        if not rows:
            return note(say("runs.none") if known else say("train.none"))
        head = "".join(f"<th scope='col'>{html.escape(say(f'runs.column.{key}'))}</th>" for key in COLUMNS)
        return (
            f"<div class='grid'><table class='plain'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )

    def compare(self, names: list[str] | None) -> str:
        """Curves in one plot, settings that differ, pictures of the same prompts."""
        known = [name for name in names or [] if self.studio.runs.folder(name)]
        if len(known) < 2:
            return note(say("runs.choose"))
        views = {name: self.studio.runs.view(name) for name in known}
        recipes = {name: self.studio.runs.recipe(name) for name in known}
        found = {name: self.studio.runs.samples(name) for name in known}
        curves = [Series(name, view.losses) for name, view in views.items()]
        held = [Series(name, view.validation) for name, view in views.items()]
        drawn = chart(curves, say("train.step"), say("train.loss")) + chart(held, say("train.step"), say("train.validation"))
        return f"<div class='charts'>{drawn}</div>{difference(recipes)}{pictures(found, recipes)}"

    def take(self, names: list[str] | None) -> str:
        """Make the first chosen run's recipe the one that is edited."""
        run = self.studio.runs.folder(next(iter(names or []), None))
        if run is None:
            gr.Warning(html.escape(say("runs.choose_one")))
            return ""
        try:
            return self.studio.take_recipe(presets.read_text(run.config_file))
        except InputError as error:
            gr.Warning(html.escape(str(error)))
            return ""


def act_button(key: str) -> gr.Button:
    """A button of the queue."""
    return gr.Button(say(f"runs.act.{key}"), size="sm", min_width=110, elem_id=key)


COLUMNS = ("run", "state", "algorithm", "steps", "loss", "pages")


def row(name: str, view: View, recipe: Mapping[str, Any]) -> str:
    """One run. Everything from outside is escaped."""
    algorithm = str(recipe.get("adapter.algorithm", "lora"))
    steps = f"{view.step}&nbsp;/&nbsp;{view.steps}" if view.steps else ""
    loss = f"{view.losses[-1][1]:.4f}" if view.losses else ""
    state = f"<span class='{view.state}'>{html.escape(say(f'state.{view.state}'))}</span>"
    pages = " ".join(link(page, say(f"{page}.name"), run=name) for page in ("samples", "tryit", "export"))
    cells = (link("train", name, run=name), state, html.escape(algorithm), steps, loss, pages)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def table(lines: Sequence[tuple[str, str]]) -> str:
    """Names and states in their order."""
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(state)}</td></tr>" for name, state in lines)
    return f"<table class='plain'>{cells}</table>"


def difference(recipes: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings in which recipes differ."""
    paths = list(dict.fromkeys(path for recipe in recipes.values() for path in recipe if path not in OWN))
    rows = [(path, [recipe.get(path) for recipe in recipes.values()]) for path in paths]
    rows = [(path, values) for path, values in rows if any(value != values[0] for value in values)]
    if not rows:
        return note(say("runs.same"))
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in recipes)
    body = "".join(f"<tr><th scope='row'>{html.escape(path)}</th>{_values(values)}</tr>" for path, values in rows)
    title = html.escape(say("runs.difference"))
    return f"<h3>{title}</h3><div class='grid'><table class='plain'><thead><tr><th></th>{head}</tr></thead>{body}</table></div>"


def _values(values: Sequence[Any]) -> str:
    return "".join(f"<td>{html.escape(say('recipe.unset') if value is None else str(value))}</td>" for value in values)


def pictures(found: Mapping[str, Samples], recipes: Mapping[str, Values]) -> str:
    """The newest samples of each run, a row a prompt that all have, without trigger words that differ."""
    triggers = {name: str(recipes[name].get("data.trigger") or "") for name in found}
    lists = [[take_out(prompt, triggers[name]) for prompt in samples.names] for name, samples in found.items()]
    shared = [prompt for prompt in lists[0] if all(prompt in prompts for prompts in lists)]
    pairs = list(zip(found.values(), lists, strict=True))
    common = triggers.popitem()[1] if len(set(triggers.values())) == 1 else PLACE
    rows = [
        Row(put_in(prompt, common), [newest(samples, prompts.index(prompt)) for samples, prompts in pairs]) for prompt in shared
    ]
    return f"<h3>{html.escape(say('runs.pictures'))}</h3>{grid(list(found), rows)}" if rows else ""


def newest(samples: Samples, number: int) -> Path | None:
    """A prompt's last picture."""
    return at(samples.steps[-1][1], number) if samples.steps else None


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    RunsPage(studio, site)


PAGE = Page("runs", build)
