"""Pictures: a folder or an upload, the captions with their tokens, all captions at once, faults with what mends them, undo."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Refused
from app.page import QUIET, WORKING, Page, note
from app.studio import Studio
from app.text import say
from trainer.errors import InputError
from trainer.presets import ROOT

MOST_TAGS = 60
GALLERY: Any = {"columns": 6, "show_label": False, "object_fit": "contain", "allow_preview": False, "interactive": False}

LOOKS = "unusable duplicate near-duplicate leak small upscaled blurred border text overlay outlier"
FIXES = dict.fromkeys(LOOKS.split(), "leave_out") | dict.fromkeys(("caption-missing", "caption-empty", "trigger"), "write")
"""What mends a fault at one press, by the lint's rule: leave pictures out, or write the caption that is read now."""
KEEPS_ONE = ("duplicate", "near-duplicate")

Values = dict[str, Any]
NOTHING: Values = {"pictures": [], "unusable": [], "findings": [], "tags": [], "most_tokens": 75, "trigger": ""}


class DatasetPage:
    """The components and what they do. ``album`` is what this tab was shown, ``chosen`` the number of its picture."""

    def __init__(self, studio: Studio, site: gr.Blocks) -> None:
        self.studio = studio
        self.album, self.chosen = gr.State(NOTHING), gr.State(None)
        self._entry()
        self.verdict = gr.HTML(padding=False)
        self.copy = gr.Button(say("dataset.copy"), visible=False, elem_id="copy")
        with gr.Row(visible=False) as self.work:
            with gr.Column(scale=3, min_width=320):
                self.gallery = gr.Gallery(elem_id="gallery", **GALLERY)
            with gr.Column(scale=2, min_width=320):
                self._editor()
        self.report = gr.HTML(padding=False)
        self._connect(site)
        self._faults()

    # what is seen

    def _entry(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self.folder = gr.Textbox(label=say("dataset.folder"), placeholder=say("dataset.folder_hint"), elem_id="folder")
                self.open = gr.Button(say("dataset.open"), elem_id="open")
                self.trigger = gr.Textbox(label=say("dataset.trigger"), info=say("dataset.trigger_hint"), elem_id="trigger")
            with gr.Column(scale=1, min_width=320):
                self.name = gr.Textbox(label=say("dataset.set_name"), value=say("dataset.set_default"), elem_id="set-name")
                self.upload = gr.File(file_count="multiple", label=say("dataset.upload"), height=190, elem_id="upload")
                gr.Button(say("dataset.next"), link="./recipe", variant="primary", elem_id="next")

    def _editor(self) -> None:
        self.caption = gr.Textbox(label=say("dataset.caption"), lines=3, placeholder=say("dataset.none"), elem_id="caption")
        self.count = gr.HTML(padding=False, elem_id="tokens")
        with gr.Row():
            self.save = gr.Button(say("dataset.save"), variant="primary", size="sm", elem_id="save-caption")
            self.undo = gr.Button(say("dataset.undo"), size="sm", elem_id="undo")
        with gr.Accordion(say("dataset.bulk"), open=False):
            self.tag = gr.Textbox(label=say("dataset.bulk_text"), elem_id="tag")
            self.other = gr.Textbox(label=say("dataset.bulk_other"), elem_id="other-tag")
            with gr.Row():
                self.add = gr.Button(say("dataset.add"), size="sm", elem_id="add-tag")
                self.remove = gr.Button(say("dataset.remove"), size="sm", elem_id="remove-tag")
                self.replace = gr.Button(say("dataset.replace"), size="sm", elem_id="replace-tag")
        self.tags = gr.HTML(padding=False, elem_id="tags")

    def _faults(self) -> None:
        """Faults with the button that mends them, drawn anew with each album."""

        @gr.render(inputs=[self.album])
        def draw(album: Values) -> None:
            for finding in album["findings"]:
                with gr.Row():
                    gr.HTML(fault(finding), padding=False)
                    mend = self._mending(album, finding)
                    if mend is not None:
                        word = say(f"dataset.{FIXES[finding['rule']]}")
                        button = gr.Button(word, size="sm", scale=0, min_width=150, elem_classes="mend")
                        button.click(partial(self._after, mend), outputs=self.live, **QUIET)

    def _mending(self, album: Values, finding: Values) -> Callable[[], object] | None:
        """What the button beside a finding does; None where only a person can mend it."""
        pictures = {picture["name"]: picture for picture in album["pictures"]}
        files = {name: picture["file"] for name, picture in pictures.items()} | {name: file for file, name in album["unusable"]}
        names = [name for name in finding["pictures"] if name in files]
        kind = FIXES.get(finding["rule"])
        if kind is None or not names:
            return None
        if kind == "write":
            captions = {files[name]: pictures[name]["read"] for name in names if name in pictures}
            return lambda: self.studio.pictures.write(captions)
        out = [files[name] for name in (names[1:] if finding["rule"] in KEEPS_ONE else names)]
        return lambda: self.studio.pictures.leave_out(out)

    # what happens

    def _connect(self, site: gr.Blocks) -> None:
        self.live = [
            self.folder, self.trigger, self.verdict, self.gallery, self.tags, self.report,
            self.album, self.chosen, self.caption, self.count, self.copy, self.work,
        ]  # fmt: skip
        live = self.live
        site.load(self.show, outputs=live, **WORKING)
        gr.on([self.open.click, self.folder.submit], self.take_folder, self.folder, live, **WORKING)
        gr.on([self.trigger.blur, self.trigger.submit], self.take_trigger, self.trigger, live, **QUIET)
        self.copy.click(self.take_copy, self.name, live, **WORKING)
        self.upload.upload(self.take_upload, [self.upload, self.name], [*live, self.upload], **WORKING)
        self.gallery.select(self.choose, [self.album], [self.chosen, self.caption, self.count], **QUIET)
        gr.on([self.save.click], self.save_caption, [self.album, self.chosen, self.caption], live, **QUIET)
        self.undo.click(self.take_back, outputs=live, **QUIET)
        self.add.click(self.add_tag, [self.album, self.tag], live, **QUIET)
        self.remove.click(self.remove_tag, [self.album, self.tag], live, **QUIET)
        self.replace.click(self.replace_tag, [self.album, self.tag, self.other], live, **QUIET)

    def show(self) -> list[Any]:
        """Everything as folder and draft have it."""
        data = self.studio.draft.values.get("data", {})
        folder, trigger = data.get("images", ""), data.get("trigger", "")
        if not folder:
            return nothing(folder, trigger, note(say("dataset.empty")))
        try:
            album = self.studio.pictures.album()
        except Refused as error:
            return nothing(folder, trigger, note(str(error), "bad"))
        shown = [(picture["thumb"], brief(picture["caption"], album["trigger"])) for picture in album["pictures"]]
        kinds = [finding["severity"] for finding in album["findings"]]
        good = note(f"{say('dataset.count', count=len(shown))}. {say('dataset.no_fault')}", "good")
        heading = f"<h3>{html.escape(say('dataset.report'))}: {len(kinds)}</h3>" if kinds else ""
        ships = self.studio.pictures.ships
        verdict = (note(say("dataset.ships")) if ships else "") + ("" if kinds else good)
        there = [gr.update(visible=ships), gr.update(visible=True)]
        return [folder, trigger, verdict, shown, tag_list(album["tags"]), heading, album, None, "", "", *there]

    def take_folder(self, folder: str) -> list[Any]:
        """A folder on this machine."""
        folder = folder.strip()
        self.studio.draft.put({"data.images": folder or None})
        if folder and not Path(folder).expanduser().is_absolute():
            gr.Info(html.escape(say("dataset.relative", folder=ROOT / folder)))
        return self.show()

    def take_copy(self, name: str) -> list[Any]:
        """A copy of a folder that ships, to be edited."""
        try:
            self.studio.pictures.copy(name.strip() or say("dataset.set_default"))
        except (InputError, OSError) as error:
            gr.Warning(html.escape(str(error)))
        return self.show()

    def take_trigger(self, trigger: str) -> list[Any]:
        """Another trigger word."""
        self.studio.draft.put({"data.trigger": trigger.strip() or None})
        return self.show()

    def take_upload(self, files: list[str], name: str) -> list[Any]:
        """Uploaded files, into a set of their own."""
        try:
            folder, count, refused = self.studio.pictures.upload(files, name or say("dataset.set_default"))
        except (InputError, OSError) as error:
            gr.Warning(html.escape(str(error)))
        else:
            gr.Info(html.escape(say("dataset.uploaded", count=count, folder=folder.name)))
            if refused:
                gr.Warning(html.escape(say("dataset.refused", names=", ".join(refused))))
        return [*self.show(), None]

    def choose(self, album: Values, event: gr.SelectData) -> list[Any]:
        """A picture was chosen."""
        picture = album["pictures"][event.index]
        return [event.index, picture["caption"], tokens(picture, album["most_tokens"])]

    def save_caption(self, album: Values, chosen: int | None, caption: str) -> list[Any]:
        """The chosen picture's caption."""
        if chosen is None:
            gr.Warning(html.escape(say("dataset.none")))
            return self.show()
        return self._after(lambda: self.studio.pictures.write({album["pictures"][chosen]["file"]: caption.strip()}), chosen)

    def add_tag(self, album: Values, tag: str) -> list[Any]:
        """To every caption that lacks it, at its end."""
        return self._change(album, tag, lambda tags: tags if tag.strip() in tags else [*tags, tag.strip()])

    def remove_tag(self, album: Values, tag: str) -> list[Any]:
        """From every caption."""
        return self._change(album, tag, lambda tags: [each for each in tags if each != tag.strip()])

    def replace_tag(self, album: Values, tag: str, other: str) -> list[Any]:
        """In every caption."""
        new = [other.strip()] if other.strip() else []
        return self._change(album, tag, lambda tags: [part for each in tags for part in (new if each == tag.strip() else [each])])

    def take_back(self) -> list[Any]:
        """The last edit."""

        def undo() -> None:
            gr.Info(html.escape(say("dataset.undone") if self.studio.pictures.undo() else say("dataset.nothing_to_undo")))

        return self._after(undo)

    # how

    def _change(self, album: Values, tag: str, change: Callable[[list[str]], list[str]]) -> list[Any]:
        if not tag.strip():
            return self.show()
        return self._after(lambda: self.studio.pictures.change_all(album["pictures"], change))

    def _after(self, edit: Callable[[], object], chosen: int | None = None) -> list[Any]:
        """Do it, say what went wrong, show what is there now, with the same picture chosen."""
        try:
            edit()
        except Refused as error:
            gr.Warning(html.escape(str(error)))
        shown = self.show()
        album = shown[6]
        if chosen is not None and chosen < len(album["pictures"]):
            picture = album["pictures"][chosen]
            shown[7:10] = [chosen, picture["caption"], tokens(picture, album["most_tokens"])]
        return shown


def nothing(folder: str, trigger: str, verdict: str) -> list[Any]:
    """What ``show`` returns where there is no album."""
    gone = gr.update(visible=False)
    return [folder, trigger, verdict, [], "", "", NOTHING, None, "", "", gone, gone]


def brief(caption: str, trigger: str) -> str:
    """A caption below its small picture: without the trigger word, which all of them begin with."""
    return caption.removeprefix(trigger).lstrip(" ,") or caption


def tokens(picture: Values, most: int) -> str:
    """How long a caption is, and what of it is not read."""
    where = f"{picture['name']} · {picture['size'][0]} × {picture['size'][1]} · {say('dataset.source', source=picture['source'])}"
    if picture["cut"]:
        text = say("dataset.cut", tokens=picture["tokens"], most=most, cut=picture["cut"])
        return note(f"{where}\n{text}", "warn")
    return note(f"{where}\n{say('dataset.tokens', tokens=picture['tokens'], most=most)}")


def tag_list(tags: list[tuple[str, int]]) -> str:
    """The most frequent tags with their counts."""
    if not tags:
        return ""
    items = "".join(f"<span>{html.escape(tag)} <b>{number}</b></span>" for tag, number in tags[:MOST_TAGS])
    return f"<h3>{html.escape(say('dataset.tags'))}</h3><div class='tags'>{items}</div>"


def fault(finding: Values) -> str:
    """One finding of the lint."""
    kind = {"error": "bad", "warning": "warn"}.get(finding["severity"], "")
    where = ", ".join(finding["pictures"][:4]) or say("check.the_set")
    return note(f"{where}: {finding['problem']}\n{say('dataset.fix', fix=finding['fix'])}", kind)


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    DatasetPage(studio, site)


PAGE = Page("dataset", build)
