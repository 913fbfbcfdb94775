"""Any adapter file: what it is, its text, its recipe to train again, norms and spectrum; and tools that make another of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Refused
from app.files import given
from app.page import QUIET, WORKING, Page, note
from app.pages.runs import TO_RECIPE
from app.parts import adapter
from app.studio import Studio
from app.text import say

ONE_BY_ONE: dict[str, Any] = {"concurrency_id": "files", "concurrency_limit": 1}

Values = dict[str, Any]


class InspectPage:
    """The components and what they do. ``found`` is what is known of the file of this tab."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        gr.Markdown(say("inspect.intro"))
        self.file = gr.File(label=say("inspect.drop"), height=170, elem_id="file")
        self.what = gr.HTML(padding=False, elem_id="what")
        with gr.Row():
            with gr.Column(min_width=320):
                self.norms = gr.HTML(padding=False, elem_id="norms")
            with gr.Column(min_width=320):
                self.spectrum = gr.HTML(padding=False, elem_id="spectrum")
        with gr.Row():
            with gr.Column(min_width=320):
                self.recipe = gr.Code(
                    language=None,
                    label=say("inspect.recipe"),
                    interactive=False,
                    visible=False,
                    max_lines=18,
                    wrap_lines=True,
                    elem_id="recipe-of-file",
                )
                self.retrain = gr.Button(say("inspect.retrain"), visible=False, elem_id="retrain")
            with gr.Column(min_width=320):
                self.metadata = gr.HTML(padding=False, elem_id="metadata")
        self._tools()
        self.taken = gr.Textbox(visible=False)
        self._connect(site)

    def _tools(self) -> None:
        gr.Markdown(f"## {say('inspect.tools')}\n{say('inspect.tools_text')}")
        with gr.Row():
            self.name = gr.Textbox(
                label=say("inspect.new_name"), value=say("inspect.new_default"), max_length=100, min_width=280, elem_id="new-name"
            )
            self.base = self._path("base")
        with gr.Row():
            with gr.Column(min_width=320, elem_classes="card"):
                self._title("convert")
                wanted, precision = self.studio.setting("export.format"), self.studio.setting("export.dtype")
                forms = [(say(f"inspect.form.{form}"), form) for form in wanted["choices"]]
                self.form = gr.Dropdown(forms, value=wanted["default"], label=say("inspect.forms"), elem_id="form")
                dtypes = [(say("inspect.same_dtype"), ""), *((dtype, dtype) for dtype in precision["choices"])]
                self.dtype = gr.Dropdown(dtypes, value="", label=say("inspect.dtype"), elem_id="dtype")
                self.convert = gr.Button(say("inspect.act.convert"), elem_id="convert")
            with gr.Column(min_width=320, elem_classes="card"):
                self._title("resize")
                self.rank = self._rank("rank", 8)
                self.resize = gr.Button(say("inspect.act.resize"), elem_id="resize")
        with gr.Row():
            with gr.Column(min_width=320, elem_classes="card"):
                self._title("merge")
                self.others = gr.File(label=say("inspect.others"), file_count="multiple", height=170, elem_id="others")
                self.weights = gr.Textbox(label=say("inspect.weights"), placeholder="1, 0.8", elem_id="weights")
                self.merged_rank = self._rank("merged-rank", 0, say("inspect.rank_or_exact"))
                self.merge = gr.Button(say("inspect.act.merge"), elem_id="merge")
            with gr.Column(min_width=320, elem_classes="card"):
                self._title("extract")
                self.model = self._path("model")
                self.tuned = self._path("tuned")
                self.extract_rank = self._rank("extract-rank", 32)
                self.extract = gr.Button(say("inspect.act.extract"), elem_id="extract")
        self.report = gr.HTML(padding=False, elem_id="report")
        self.download = gr.DownloadButton(say("inspect.download"), visible=False, variant="primary", elem_id="download")

    def _title(self, key: str) -> None:
        gr.Markdown(f"### {say(f'inspect.act.{key}')}\n{say(f'inspect.act_text.{key}')}")

    def _path(self, name: str) -> gr.Textbox:
        label = say(f"inspect.path.{name}")
        return gr.Textbox(label=label, placeholder=say("inspect.path_hint"), min_width=280, elem_id=name)

    def _rank(self, name: str, value: int, label: str = "") -> gr.Number:
        least = min(value, 1)
        return gr.Number(value, label=label or say("inspect.rank"), minimum=least, maximum=4096, precision=0, elem_id=name)

    def _connect(self, site: gr.Blocks) -> None:
        shown = [self.what, self.norms, self.spectrum, self.recipe, self.retrain, self.metadata, self.rank]
        self.file.upload(self.examine, self.file, shown, **WORKING, **ONE_BY_ONE)
        self.file.clear(self.empty, None, shown, **QUIET)
        self.retrain.click(self.studio.take_recipe, self.recipe, self.taken, **QUIET).then(
            None, self.taken, None, js=TO_RECIPE, **QUIET
        )
        common, made = [self.file, self.name, self.base], [self.report, self.download]
        for button, act, more in (
            (self.convert, self.studio.files.convert, [*common, self.form, self.dtype]),
            (self.resize, self.studio.files.resize, [*common, self.rank]),
            (self.merge, self.merge_with, [self.file, self.others, self.weights, *common[1:], self.merged_rank]),
            (self.extract, self.studio.files.extract, [self.model, self.tuned, self.name, self.extract_rank]),
        ):
            button.click(making(act), more, made, **WORKING, **ONE_BY_ONE)

    def examine(self, file: str | None) -> list[Any]:
        """Everything about a dropped file, or why it cannot be read."""
        try:
            found = self.studio.files.examine(given(file))
        except Refused as error:
            return [note(str(error), "bad"), *self.empty()[1:]]
        has_recipe = bool(found["toml"])
        return [
            adapter.what(found),
            adapter.norms(found),
            adapter.spectrum(found),
            gr.update(value=found["toml"] or found["no_recipe"], visible=True),
            gr.update(visible=has_recipe),
            adapter.metadata(found),
            found["keep"] or gr.skip(),
        ]

    def empty(self) -> list[Any]:
        """Nothing is shown of any file."""
        return ["", "", "", gr.update(value="", visible=False), gr.update(visible=False), "", gr.skip()]

    def merge_with(
        self, file: str | None, others: list[str] | None, weights: str, name: str, base: str, rank: float | None
    ) -> Values:
        """The file of this tab and others as one."""
        return self.studio.files.merge([given(file), *(others or [])], weights, name, base, rank)


def making(act: Callable[..., Values]) -> Callable[..., list[Any]]:
    """A tool as an event: what it says of the new file, and the file."""

    def event(*values: Any) -> list[Any]:
        try:
            made = act(*values)
        except Refused as error:
            return [note(str(error), "bad"), gr.update(visible=False)]
        file = Path(made["file"])
        label = say("inspect.download_name", name=file.name)
        return [note("\n".join(made["lines"]), "good"), gr.update(value=str(file), label=label, visible=True)]

    return event


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    InspectPage(studio, site)


PAGE = Page("inspect", build)
