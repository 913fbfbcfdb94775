"""A run's file for others: name, author, licence, picture, what stays private; checksums, lines to paste, and who read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Refused
from app.page import QUIET, WORKING, Page, asked_run, note
from app.pages.inspect import ONE_BY_ONE
from app.pages.samples import at
from app.parts.handover import PROGRAMS, checksum, lines, readers
from app.parts.strip import strip
from app.studio import Studio
from app.text import say
from trainer.privacy import NAMES, PRIVACY
from trainer.run import EMBEDDING, RunDir

LICENCES = ("", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CreativeML-OpenRAIL-M", "MIT")
"""That are offered; any other can be written."""
NO_PICTURE = -1
NO_LINES = [""] * len(PROGRAMS)

Values = dict[str, Any]


class ExportPage:
    """The components and what they do."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        gr.Markdown(say("export.intro"))
        with gr.Row():
            self.run = gr.Dropdown(choices=[], label=say("export.run"), interactive=True, min_width=280, elem_id="run")
            self.which = gr.Dropdown(choices=[], label=say("export.which"), interactive=True, min_width=280, elem_id="which")
        with gr.Row():
            with gr.Column(min_width=320):
                self._about()
            with gr.Column(min_width=320):
                self._beside()
        self._connect(site)

    def _about(self) -> None:
        self.name = gr.Textbox(label=say("export.name_of"), max_length=100, elem_id="name")
        self.trigger = gr.Textbox(label=say("export.trigger"), max_length=200, elem_id="trigger")
        self.author = gr.Textbox(label=say("export.author"), max_length=200, elem_id="author")
        self.licence = gr.Dropdown(
            list(LICENCES), value="", label=say("export.licence"), allow_custom_value=True, elem_id="licence"
        )
        self.description = gr.Textbox(label=say("export.description"), lines=3, max_length=5000, elem_id="description")
        self.preview = gr.Dropdown(choices=[], label=say("export.preview"), interactive=True, elem_id="preview")
        self.shown = gr.HTML(padding=False, elem_id="preview-picture")
        levels = [(say(f"export.keep.{key}"), key) for key in PRIVACY]
        self.privacy = gr.Radio(levels, value=NAMES, label=say("export.privacy"), elem_id="privacy")
        self.write = gr.Button(say("export.write"), variant="primary", elem_id="write")
        self.report = gr.HTML(padding=False, elem_id="report")
        self.download = gr.DownloadButton(say("inspect.download"), visible=False, variant="primary", elem_id="download")

    def _beside(self) -> None:
        common: dict[str, Any] = {"interactive": False, "lines": 1, "max_lines": 6, "buttons": ["copy"]}
        with gr.Column(elem_id="lines"):
            self.lines = [gr.Textbox(label=say(f"export.line.{key}"), elem_id=f"line-{key}", **common) for key in PROGRAMS]
        self.checksum = gr.HTML(padding=False, elem_id="checksum")
        self.readers = gr.HTML(padding=False, elem_id="readers")

    def _connect(self, site: gr.Blocks) -> None:
        file = [self.run, self.which]
        told = [self.name, self.trigger, self.author, self.licence, self.description, self.preview, self.privacy]
        of_file = [self.checksum, self.readers, *self.lines]
        live = [*file, self.name, self.trigger, self.preview, self.shown, *of_file, self.report, self.download]
        site.load(self.enter, outputs=live, **WORKING)
        self.run.input(self.show, self.run, live, **WORKING)
        self.which.input(self.of_file, [*file, self.name, self.trigger], of_file, **QUIET)
        self.preview.input(self.picture, [self.run, self.preview], self.shown, **QUIET)
        for typed in (self.name, self.trigger):
            typed.change(self.to_paste, [*file, self.name, self.trigger], self.lines, trigger_mode="always_last", **QUIET)
        made = [self.report, self.download, self.checksum, *self.lines]
        self.write.click(self.publish, [*file, *told], made, **WORKING, **ONE_BY_ONE)

    def enter(self, request: gr.Request) -> list[Any]:
        """The run that the address names, or the newest that has a file."""
        return self.show(asked_run(request))

    def show(self, name: str | None) -> list[Any]:
        """A run's file, and what its recipe tells of it."""
        names = [each for each in self.studio.runs.names() if self._files(each)]
        name = name if name in names else next(iter(names), None)
        files, recipe = list(self._files(name)), self.studio.runs.recipe(name or "")
        which = next(iter(files), None)
        title, trigger = (str(recipe.get(path, "")) for path in ("run.name", "data.trigger"))
        title = title or name or ""
        prompts = self.studio.runs.samples(name).names
        pictures = [(say("export.no_picture"), NO_PICTURE), *((prompt, number) for number, prompt in enumerate(prompts))]
        first = 0 if prompts else NO_PICTURE
        return [
            gr.update(choices=names, value=name),
            gr.update(choices=files, value=which),
            title,
            trigger,
            gr.update(choices=pictures, value=first),
            self.picture(name, first),
            *self.of_file(name, which, title, trigger),
            "" if name else note(say("export.none")),
            gr.update(visible=False),
        ]

    def of_file(self, name: str | None, which: str | None, title: str, trigger: str) -> list[Any]:
        """Checksums of a run's file, who read it back, and the lines to paste."""
        file = self._files(name).get(which or "")
        if file is None:
            return ["", "", *NO_LINES]
        try:
            sums = checksum(self.studio.files.checksums(str(file)))
        except Refused as error:
            sums = note(str(error), "bad")
        return [sums, readers(self.verdicts(name, which)), *self.to_paste(name, which, title, trigger)]

    def to_paste(self, name: str | None, which: str | None, title: str, trigger: str) -> list[str]:
        """The lines under the name that the file will have."""
        return lines(title, trigger, self.verdicts(name, which))

    def verdicts(self, name: str | None, which: str | None) -> list[Values]:
        """What readers made of a run's file: of the one that it ended with, which alone was read back."""
        run, last = self.studio.runs.folder(name), self.studio.runs.view(name).file
        if run is None or last is None or last.name != which:
            return []
        try:
            found = json.loads(run.verify_file.read_text(encoding="utf-8"))
            return [{key: each[key] for key in ("reader", "error", "message")} for each in found]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def picture(self, name: str | None, number: int | None) -> str:
        """The chosen sample."""
        file = self._sample(name, number)
        return strip([("", file)]) if file else ""

    def publish(self, name: str | None, which: str | None, *told: Any) -> list[Any]:
        """Write the file for others, and show what it is now."""
        title, trigger, author, licence, description, number, privacy = told
        file = self._files(name).get(which or "")
        card = {
            "name": title, "author": author, "license": licence, "trigger_phrase": trigger, "description": description,
            "picture": self._sample(name, number), "privacy": privacy,
        }  # fmt: skip
        try:
            if file is None:
                raise Refused(say("export.none"))
            made = self.studio.files.publish(str(file), {key: str(value or "") for key, value in card.items()})
        except Refused as error:
            return [note(str(error), "bad"), gr.update(visible=False), *[gr.skip()] * (1 + len(PROGRAMS))]
        new = Path(made["file"])
        return [
            note(say("export.written", file=new.name), "good"),
            gr.update(value=str(new), label=say("inspect.download_name", name=new.name), visible=True),
            checksum(made["checksums"]),
            *lines(new.stem, str(trigger or ""), self.verdicts(name, which)),
        ]

    def _sample(self, name: str | None, number: int | None) -> Path | None:
        steps = self.studio.runs.samples(name).steps
        return at(steps[-1][1], number) if steps and number is not None and number >= 0 else None

    def _files(self, name: str | None) -> dict[str, Path]:
        run = self.studio.runs.folder(name)
        return adapter_files(run) if run else {}


def adapter_files(run: RunDir) -> dict[str, Path]:
    """A run's adapter files by name: the one without a step first, then the newest."""
    found = [file for file in run.path.glob("*.safetensors") if not file.stem.endswith(EMBEDDING) and not file.is_symlink()]
    newest = sorted(found, key=lambda file: file.name, reverse=True)
    return {file.name: file for file in sorted(newest, key=lambda file: len(file.name))}


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    ExportPage(studio, site)


PAGE = Page("export", build)
