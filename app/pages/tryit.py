"""Try it: a prompt drawn by a base model and, with the same seed, by adapters at strengths upon it; and what was tried before."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Refused
from app.draft import put
from app.page import QUIET, WORKING, Page, asked_run, news, note
from app.pages.export import adapter_files
from app.pages.home import DEMO
from app.parts import form, tried
from app.studio import Studio
from app.text import say
from app.trials import Tried
from trainer import presets
from trainer.trigger import put_in

SAMPLING = ("seed", "steps", "guidance", "negative", "width", "height")
"""Settings of ``preview`` that a trial has."""
STRENGTH = "preview.strength"
MOST = 4
"""Adapters at once."""
MOST_SHOWN = 24
"""Trials in the history."""
REFRESH_SECONDS = 1.0
POCKET = ""
"""The choice of the base model that ships; the others are the names of runs that used them."""
KEEP_ADDRESS = "(name) => { if (name) history.replaceState(null, '', './tryit?trial=' + encodeURIComponent(name)); }"
ANY_SEED = "() => Math.floor(Math.random() * 4294967296)"

Values = dict[str, Any]


class TryPage:
    """The components and what they do. ``name`` is the trial that this tab shows."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        self.rows = [studio.setting(f"preview.{name}") for name in SAMPLING]
        self.bounds = studio.setting(STRENGTH)["bounds"]
        self.usual = {row["path"]: row["default"] for row in studio.schema if row["path"].startswith("model.")}
        gr.Markdown(say("tryit.intro"))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._asked()
            with gr.Column(scale=3, min_width=320):
                self._shown()
        self.history = gr.HTML(padding=False, elem_id="history")
        self.name = gr.Textbox(visible=False)
        self.sent = gr.State([])
        self.timer = gr.Timer(REFRESH_SECONDS, active=False)
        self._connect(site)

    def _asked(self) -> None:
        self.prompt = gr.Textbox(label=say("tryit.prompt"), lines=2, max_length=5000, elem_id="prompt")
        self.adapters = gr.Dropdown(
            choices=[], multiselect=True, max_choices=MOST, label=say("tryit.adapters"), interactive=True, elem_id="adapters"
        )
        with gr.Column(elem_id="strengths"):
            self.strengths = [
                gr.Slider(self.bounds["ge"], self.bounds["le"], value=1.0, step=0.05, visible=False) for _ in range(MOST)
            ]
        self.upload = gr.UploadButton(say("tryit.upload"), file_types=[".safetensors"], size="sm", elem_id="upload")
        self.model = gr.Dropdown(choices=[], label=say("tryit.model"), interactive=True, elem_id="model")
        with gr.Row():
            self.make = gr.Button(say("tryit.make"), variant="primary", elem_id="make")
            self.cancel = gr.Button(say("tryit.cancel"), variant="stop", visible=False, elem_id="cancel")
        with gr.Column(elem_classes="fields", elem_id="sampling"):
            self.controls = [form.control(row, visible=True) for row in self.rows]
        self.controls[0].elem_id = "seed"
        self.other_seed = gr.Button(say("tryit.other_seed"), size="sm", elem_id="other-seed")

    def _shown(self) -> None:
        self.progress = gr.HTML(padding=False, elem_id="progress")
        with gr.Row():
            self.pictures = [gr.HTML(padding=False, min_height=150, elem_id=key) for key in ("base", "with")]

    def _connect(self, site: gr.Blocks) -> None:
        chosen = [self.adapters, *self.strengths, self.model]
        live = [self.name, self.progress, *self.pictures, self.make, self.cancel, self.history, self.timer, self.sent]
        given = [self.prompt, self.adapters, self.model, *self.strengths, *self.controls]
        site.load(self.enter, outputs=[self.prompt, *chosen, *self.controls, *live], **WORKING)
        self.adapters.input(self.choose, [self.adapters, *self.strengths], chosen, **QUIET)
        self.upload.upload(self.take, [self.upload, self.adapters, *self.strengths], chosen, **WORKING)
        gr.on([self.make.click, self.prompt.submit], self.begin, [self.name, *given], live, concurrency_limit=1, **WORKING).then(
            None, self.name, None, js=KEEP_ADDRESS, **QUIET
        )
        self.cancel.click(self.stop, self.name, live, **QUIET)
        self.timer.tick(self.refresh, [self.name, self.sent], live, **QUIET)
        self.other_seed.click(None, outputs=self.controls[0], js=ANY_SEED, **QUIET)

    # what happens

    def enter(self, request: gr.Request) -> list[Any]:
        """The trial that the address names, or the run, or the newest trial; else what the newest run offers."""
        run = asked_run(request)
        name = str(request.query_params.get("trial", "")) or ("" if run else next(iter(self.studio.trials.names()), ""))
        shown = self.studio.trials.look(name)
        return [*(self._as_tried(shown) if shown else self._as_run(run)), *self.refresh(shown.name if shown else "", [])]

    def choose(self, keys: list[str] | None, *strengths: float) -> list[Any]:
        """Other adapters: their sliders, and the base model of the last one's run."""
        keys = self._known(keys)
        return self._chosen(keys, strengths, self._model_of(keys[-1]) if keys else None)

    def take(self, file: str | None, keys: list[str] | None, *strengths: float) -> list[Any]:
        """Keep a file that was dropped, and choose it."""
        if not file:
            return [gr.skip()] * (MOST + 2)
        keys = self._known(keys)
        try:
            keys = [*keys[: MOST - 1], self.studio.files.take(file).name]
        except Refused as error:
            gr.Warning(html.escape(str(error)))
        return self._chosen(keys, strengths, None)

    def begin(self, name: str, prompt: str, keys: list[str] | None, model: str | None, *values: Any) -> list[Any]:
        """Draw what the controls say."""
        try:
            name = self.studio.trials.add(self._trial(prompt, self._known(keys), model, values))
        except (Refused, ValueError) as error:
            return [name, note(str(error), "bad"), *[gr.skip()] * 6, []]
        if self.studio.queue.is_busy():
            gr.Info(html.escape(say("tryit.beside")))
        return self.refresh(name, [])

    def stop(self, name: str) -> list[Any]:
        """End what is being drawn."""
        self.studio.trials.cancel()
        return self.refresh(name, [])

    def refresh(self, name: str, before: list[Any]) -> list[Any]:
        """How far the trial is, of which only that is sent which a tab does not have."""
        trials = self.studio.trials
        shown, drawing = trials.look(name), trials.drawing()
        new: list[Values] = [
            {"value": tried.progress(shown)},
            {"value": tried.figure(say("tryit.base"), shown.base if shown else None)},
            {"value": tried.figure(say("tryit.with"), shown.adapted if shown else None)},
            {"interactive": not drawing},
            {"visible": bool(drawing)},
            {"value": tried.history(trials.past(MOST_SHOWN))},
            {"active": bool(drawing)},
        ]
        return [name, *news(before, new), new]

    # how

    def _adapters(self) -> dict[str, Path]:
        """Files that can be chosen: ``RUN/FILE`` of runs, the newest first, and those that were dropped or made."""
        runs = self.studio.runs
        found = {
            f"{name}/{file}": path
            for name in runs.names()
            if (run := runs.folder(name))
            for file, path in adapter_files(run).items()
        }
        return found | self.studio.files.adapters()

    def _known(self, keys: Sequence[str] | None) -> list[str]:
        there = self._adapters()
        return [key for key in keys or [] if key in there][:MOST]

    def _models(self) -> dict[str, Values]:
        """Base models with the resolution that they were used at, by the run; one that several runs used comes once."""
        found = {POCKET: self._base_of(presets.load(DEMO))}
        for run in self.studio.runs.names():
            used = self._base_of(nested(self.studio.runs.recipe(run)))
            if used not in found.values():
                found[run] = used
        return found

    def _base_of(self, recipe: Mapping[str, Any]) -> Values:
        """What of a recipe says which base model draws and how large, without what is usual."""
        told = {name: value for name, value in recipe.get("model", {}).items() if value != self.usual.get(f"model.{name}")}
        size = recipe.get("data", {}).get("resolution")
        return {"model": told} | ({} if size is None else {"data": {"resolution": size}})

    def _model_of(self, key: str) -> str | None:
        """The choice that has the base model of an adapter's run; None where it is of no run."""
        run, slash, _ = key.rpartition("/")
        used = self._base_of(nested(self.studio.runs.recipe(run))) if slash else None
        return next((choice for choice, values in self._models().items() if values == used), None)

    def _chosen(self, keys: Sequence[str], strengths: Sequence[float], model: str | None) -> list[Any]:
        """New properties of adapters, sliders and base model; ``model`` None leaves that as it is."""
        sliders = [
            gr.update(visible=True, label=label(keys[number]), value=strength)
            if number < len(keys)
            else gr.update(visible=False, value=1.0)
            for number, strength in enumerate([*strengths, *[1.0] * MOST][:MOST])
        ]
        choices = [(model_label(run, values), run) for run, values in self._models().items()]
        base = gr.update(choices=choices) if model is None else gr.update(choices=choices, value=model)
        return [gr.update(choices=[(label(key), key) for key in self._adapters()], value=list(keys)), *sliders, base]

    def _as_tried(self, shown: Tried) -> list[Any]:
        """Prompt, choices and controls as they were."""
        by_path = {str(path): key for key, path in self._adapters().items()}
        pairs = [(by_path[file], strength) for file, strength in shown.adapters if file in by_path]
        used = self._base_of(shown.values)
        model = next((run for run, values in self._models().items() if values == used), POCKET)
        chosen = self._chosen([key for key, _ in pairs], [strength for _, strength in pairs], model)
        return [shown.prompt, *chosen, *self._sampled(shown.sampling)]

    def _as_run(self, run: str) -> list[Any]:
        """What a run offers, the newest one that has a file where none is named: file, base model, prompt and sampling."""
        there = list(self._adapters())
        key = next((key for key in there if key.startswith(f"{run}/")), next(iter(there), "")) if run else next(iter(there), "")
        name = key.rpartition("/")[0]
        recipe = nested(self.studio.runs.recipe(name)) if name else presets.load(DEMO)
        sampling, trigger = recipe.get("preview", {}), str(recipe.get("data", {}).get("trigger", ""))
        prompt = put_in(str(next(iter(sampling.get("prompts", [])), "")), trigger)
        model = self._model_of(key) if key else POCKET
        return [prompt, *self._chosen([key] if key else [], [], POCKET if model is None else model), *self._sampled(sampling)]

    def _sampled(self, sampling: Mapping[str, Any]) -> list[Any]:
        return [form.shown(row, sampling.get(name, row["default"])) for name, row in zip(SAMPLING, self.rows, strict=True)]

    def _trial(self, prompt: str, keys: Sequence[str], model: str | None, values: Sequence[Any]) -> Values:
        """What ``trainer.try_out`` reads. Raises ``ValueError`` with what to write."""
        there, models = self._adapters(), self._models()
        sampling = {name: form.given(row, value) for name, row, value in zip(SAMPLING, self.rows, values[MOST:], strict=True)}
        used = models.get(model or POCKET, models[POCKET])
        return used | {
            "preview": {"prompts": [prompt]} | {name: value for name, value in sampling.items() if value is not None},
            "adapters": [
                {"file": str(there[key]), "strength": strength} for key, strength in zip(keys, values[:MOST], strict=False)
            ],
        }


def nested(leaves: Mapping[str, Any]) -> Values:
    """Sections of settings by dotted path."""
    found: Values = {}
    for path, value in leaves.items():
        put(found, path, value)
    return found


def label(key: str) -> str:
    """``RUN · FILE``, without the file's ending."""
    return " · ".join(part.removesuffix(".safetensors") for part in key.split("/"))


def model_label(run: str, values: Mapping[str, Any]) -> str:
    """The base model's name, and a run that used it."""
    base = Path(str(values["model"].get("base", "pocket"))).name
    return say("tryit.of_run", base=base, run=run) if run else say("tryit.pocket")


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    TryPage(studio, site)


PAGE = Page("tryit", build)
