"""The recipe: where it begins, the settings that matter, all others by section, what was changed, and the TOML that will run."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from app.desk import Refused
from app.page import QUIET, WORKING, Page, news
from app.pages import check
from app.pages.home import TO_TRAIN
from app.parts import algorithms, form
from app.parts.algorithms import ALGORITHM
from app.parts.recipe_file import RecipeFile
from app.parts.verdict import verdict
from app.studio import Studio
from app.text import say
from trainer import presets
from trainer.errors import InputError

PATIENCE = 0.5
"""Seconds of one question for the cards, between which others are answered."""

Values = dict[str, Any]


class RecipePage:
    """The components and what they do."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        rows = studio.schema
        self.basic = [row for row in rows if row["level"] == "basic"]
        self.sections = list(dict.fromkeys(row["path"].partition(".")[0] for row in rows))
        self.advanced = [row for row in rows if row["level"] != "basic"]
        self.rows = [*self.basic, *self.advanced]
        self.algorithm_row = next(row for row in rows if row["path"] == ALGORITHM)
        self.shipped = [(f"{preset.name}: {preset.title}", preset.name) for preset in presets.list_presets()]
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self._controls()
            with gr.Column(scale=2, min_width=320):
                self._beside()
        self.seen = gr.JSON(visible=False)
        """What every control was given, kept in the browser: it comes with the values that a user changed, so that an answer on
        its way there is never taken for a change."""
        self.told = gr.State([])
        self.cards = gr.State([])
        self.started = gr.Textbox(visible=False)
        self._connect(site)

    # what is seen

    def _controls(self) -> None:
        self.preset = gr.Dropdown(self._presets(), label=say("recipe.preset"), elem_id="preset")
        with gr.Column(elem_classes="fields", visible=False) as self.fields:
            self.controls = [control(row) for row in self.basic]
        self.search = gr.Textbox(label=say("recipe.search"), placeholder=say("recipe.search_hint"), elem_id="search")
        self.groups = []
        for section in self.sections:
            rows = [row for row in self.advanced if row["path"].startswith(f"{section}.")]
            with gr.Accordion(say(f"section.{section}"), open=False) as group, gr.Column(elem_classes="fields"):
                self.controls += [control(row) for row in rows]
            self.groups.append(group)

    def _beside(self) -> None:
        self.verdict = gr.HTML(elem_id="verdict")
        with gr.Row():
            self.look = gr.Button(say("recipe.look"), link=f"./check?{check.ASKED}=1", elem_id="look")
            self.start = gr.Button(say("recipe.start"), variant="primary", elem_id="start")
        self.changes = gr.CheckboxGroup(label=say("recipe.changed"), info=say("recipe.changed_hint"), visible=False)
        self.toml = gr.Code(
            language=None, label=say("recipe.toml"), interactive=False, elem_id="toml", wrap_lines=True, buttons=["copy"]
        )
        self.file = RecipeFile(self.studio)

    # what happens

    def _connect(self, site: gr.Blocks) -> None:
        live = [
            self.preset,
            self.verdict,
            self.start,
            self.changes,
            self.toml,
            self.fields,
            *self.groups,
            *self.controls,
            self.seen,
            self.told,
        ]
        given = [self.search, self.seen, self.told, *self.controls]
        one_by_one: dict[str, Any] = {"concurrency_id": "recipe", "concurrency_limit": 1}
        shown = site.load(self.show, [self.search], live, **WORKING, **one_by_one)
        edited = gr.on(
            [trigger for control in self.controls for trigger in triggers(control)], self.edit, given, live,
            trigger_mode="always_last", **QUIET, **one_by_one,
        )  # fmt: skip
        gr.on([self.search.submit, self.search.input], self.seek, given, live, trigger_mode="always_last", **QUIET, **one_by_one)
        begun = self.preset.input(self.begin, [self.preset, self.search], live, **WORKING, **one_by_one)
        taken = self.file.take.upload(self.take, [self.file.take, self.search], live, **WORKING, **one_by_one)
        gr.on(
            [self.file.keep.click, self.file.name.submit], self.keep, [self.file.name, self.search], live, **QUIET, **one_by_one
        )
        undone = self.changes.input(self.reset, [self.changes, self.search], live, **QUIET, **one_by_one)
        for event in (shown, edited, begun, taken, undone):
            event.then(None, None, None, js=algorithms.SHOW, **QUIET).then(
                self.count, self.cards, [self.algorithm, self.cards], concurrency_id="cards", concurrency_limit=1, **QUIET
            )
        self.start.click(self.studio.start_draft, outputs=self.started, **WORKING, **one_by_one).then(
            None, self.started, None, js=TO_TRAIN, **QUIET
        )

    @property
    def algorithm(self) -> gr.Radio:
        """The cards."""
        return self.controls[self.rows.index(self.algorithm_row)]

    def count(self, told: list[str]) -> Iterator[list[Any]]:
        """What the cards say of the recipe, as far as it is counted, until all is; ``told`` is what this tab's say."""
        whole = False
        while not whole:
            draft = self.studio.draft
            try:
                found, whole = self.studio.desk.ask("cards", draft.values, draft.preset, PATIENCE)
            except Refused:
                found, whole = {}, True
            shown = [name for name in self.algorithm_row["choices"] if name in found or not found]
            new = algorithms.choices(shown, found)
            yield [gr.skip() if new == told else gr.update(choices=new), new]
            told = new

    def show(self, search: str) -> list[Any]:
        """Everything as the draft has it."""
        return self._updates(search, [])

    def edit(self, search: str, seen: list[Any] | None, told: list[Any], *values: Any) -> list[Any]:
        """A control was changed by the user."""
        try:
            changes = form.changed(self.rows, seen, values) if seen else {}
            self._take(changes)
        except (ValueError, Refused) as error:
            gr.Warning(html.escape(str(error)))
        return self._updates(search, told, values)

    def seek(self, search: str, seen: list[Any] | None, told: list[Any], *values: Any) -> list[Any]:
        """Other settings are looked for."""
        return self._updates(search, told, values)

    def begin(self, preset: str, search: str) -> list[Any]:
        """Another preset, shipped or own."""
        own = self.studio.own.file(preset)
        try:
            values = self.studio.desk.ask("read_file", str(own)) if own else presets.load(preset)
            self.studio.draft.begin(values, preset)
        except (InputError, Refused) as error:
            gr.Warning(html.escape(str(error)))
        return self._updates(search, [])

    def take(self, file: str, search: str) -> list[Any]:
        """A recipe from a file."""
        return self._said(lambda: self.file.taken(file), search)

    def keep(self, name: str, search: str) -> list[Any]:
        """The recipe as an own preset."""
        return self._said(lambda: self.file.kept(name), search)

    def reset(self, kept: list[str], search: str) -> list[Any]:
        """Take back the changes that are no longer ticked."""
        self.studio.draft.reset([path for path in self.studio.draft.changes() if path not in kept])
        return self._updates(search, [])

    # how

    def _presets(self) -> list[tuple[str, str]]:
        """What can be begun with, own ones first."""
        own = [(say("recipe.own_preset", name=preset.name), preset.name) for preset in self.studio.own.presets()]
        return own + self.shipped

    def _said(self, act: Callable[[], str], search: str) -> list[Any]:
        """Do it, say what came of it, show what is there now."""
        try:
            gr.Info(html.escape(act()))
        except Refused as error:
            gr.Warning(html.escape(str(error)))
        return self._updates(search, [])

    def _take(self, changes: Mapping[str, Any]) -> None:
        algorithm = changes.get(ALGORITHM)
        if algorithm:
            draft = self.studio.draft
            values, sister = self.studio.desk.ask("with_algorithm", draft.values, draft.preset, algorithm)
            draft.replace(values)
            gr.Info(html.escape(say("recipe.as_sister", preset=sister) if sister else say("recipe.rates_stay")))
        self.studio.draft.put({path: value for path, value in changes.items() if path != ALGORITHM})
        kept, reasons = self.studio.desk.ask("without_vain", self.studio.draft.values)
        if reasons:
            self.studio.draft.replace(kept)
            gr.Info(html.escape(say("recipe.taken_out", reasons="; ".join(reasons))))

    def _updates(self, search: str, told: list[Any], values: tuple[Any, ...] = ()) -> list[Any]:
        """New properties of everything, of which only those are sent that a tab does not have.

        A tab has what it was ``told``, but for the controls that a user has changed since: ``values`` are what they hold.
        """
        seen, new = self._now(search)
        sent = news(told, new)
        first = len(new) - len(self.rows)
        for number, value in enumerate(values, first):
            if not form.same(value, new[number]["value"]):
                sent[number] = gr.update(**new[number])
        return [*sent, seen, new]

    def _now(self, search: str) -> tuple[list[Any], list[Values]]:
        """What every control is to hold, and the properties of all components."""
        draft, judged = self.studio.draft, self.studio.judge()
        changes = draft.changes()
        whole = judged["whole"] or draft.values
        seen = form.current(self.rows, whole)
        algorithm = whole.get("adapter", {}).get("algorithm", "lora")
        visible = [form.is_relevant(row, algorithm, judged["no_effect"]) and form.matches(row, search) for row in self.rows]
        lines = [(change_line(path, *pair), path) for path, pair in changes.items()]
        rows = zip(self.rows, seen, visible, strict=True)
        choices = self._presets()
        return seen, [
            {"choices": choices, "value": draft.preset if draft.preset in dict(choices).values() else None},
            {"value": verdict(judged)},
            {"interactive": not (judged["problem"] or judged["missing"])},
            {"choices": lines, "value": list(changes), "visible": bool(changes)},
            {"value": judged["toml"]},
            {"visible": True},
            *self._group_updates(visible, changes, search),
            *(form.update(row, value, show, row["path"] in changes) for row, value, show in rows),
        ]

    def _group_updates(self, visible: list[bool], changes: Mapping[str, Any], search: str) -> list[Values]:
        found = []
        for section in self.sections:
            rows = [
                number for number in range(len(self.basic), len(self.rows)) if self.rows[number]["path"].startswith(f"{section}.")
            ]
            count = len({self.rows[number]["path"] for number in rows} & changes.keys())
            label = say(f"section.{section}") + (f" · {count}" if count else "")
            found.append({"label": label, "visible": any(visible[number] for number in rows), "open": bool(search)})
        return found


def control(row: form.Row) -> Any:
    """A setting's control; that of the algorithm is cards."""
    return algorithms.control(row) if row["path"] == ALGORITHM else form.control(row, visible=True)


def triggers(control: Any) -> list[Any]:
    """The events by which a user ends a change of a control."""
    return [control.blur, control.submit] if isinstance(control, gr.Number | gr.Textbox) else [control.input]


def change_line(path: str, before: Any, now: Any) -> str:
    """``optimizer.lr: 0.001 → 0.002``."""
    old, new = (say("recipe.unset") if value is None else str(value) for value in (before, now))
    return f"{path}: {old} → {new}"


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    RecipePage(studio, site)


PAGE = Page("recipe", build)
