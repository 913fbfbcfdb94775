"""A run while it goes on and after: state, curves, newest samples, the file, the log, and the buttons to stop it and go on."""

from __future__ import annotations

import html
import os
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app import diagnostics, watch
from app.page import QUIET, Page, asked_run, news, note
from app.parts.chart import Series, chart
from app.parts.status import cannot_start, status
from app.parts.strip import download, picture, row
from app.queue import Job
from app.studio import Studio
from app.text import say
from app.watch import View

REFRESH_SECONDS = 1.5
LOG_LINES = 40
LAST_LINES = 12
"""Of the log, that stand beside what went wrong."""
COPY = "(text) => { if (text && navigator.clipboard) navigator.clipboard.writeText(text).catch(() => null); }"
"""Where the browser does not allow it, as on a page that is no secure one, the text field has a button of its own."""
KEEP_ADDRESS = "(name) => { if (name) history.replaceState(null, '', './train?run=' + encodeURIComponent(name)); return name; }"


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    run = gr.Dropdown(choices=[], label=say("train.run"), interactive=True, elem_id="run")
    parts = live_parts()
    told = gr.Textbox(
        label=say("train.diagnostics_label"), lines=6, max_lines=20, visible=False, buttons=["copy"], elem_id="told"
    )
    shown = gr.State([])
    stop, sample, save, go_on, diagnose = parts[1:6]

    def show(name: str | None, before: list[Any]) -> list[Any]:
        names = studio.names()
        name = name if name in names else next(iter(names), None)
        new = [{"choices": names, "value": name}, *updates(studio, name)]
        return [*news(before, new), new]

    def enter(request: gr.Request) -> list[Any]:
        return show(asked_run(request), [])

    live = [run, *parts, shown]
    site.load(enter, outputs=live, **QUIET)
    run.input(lambda name: show(name, []), run, live, js=KEEP_ADDRESS, **QUIET)
    stop.click(studio.queue.request_stop, run, None, **QUIET)
    for button, what in ((sample, "sample"), (save, "save")):
        button.click(partial(ask, studio, what), run, None, **QUIET)
    go_on.click(studio.queue.resume, run, None, **QUIET)
    diagnose.click(partial(diagnosis, studio), run, told, **QUIET).then(None, told, None, js=COPY, **QUIET)
    gr.Timer(REFRESH_SECONDS).tick(show, [run, shown], live, **QUIET)


PAGE = Page("train", build)


def ask(studio: Studio, what: str, name: str | None) -> None:
    """Ask the run for pictures or a save."""
    run = studio.runs.folder(name)
    if run is not None:
        run.request(what)
        gr.Info(html.escape(say("train.asked")))


def live_parts() -> list[Any]:
    """The components of ``updates``, in its order.

    Pictures and files are links: gradio's own components copy each into a folder, at every change and where there is no room.
    """
    heading = {"visible": False, "padding": False}
    parts = [gr.HTML(elem_id="status")]
    with gr.Row():
        parts += [
            gr.Button(say("train.stop"), variant="stop", size="sm", visible=False, elem_id="stop"),
            gr.Button(say("train.sample"), size="sm", visible=False, elem_id="sample"),
            gr.Button(say("train.save"), size="sm", visible=False, elem_id="save"),
            gr.Button(say("train.resume"), size="sm", visible=False, elem_id="resume"),
            gr.Button(say("train.diagnostics"), size="sm", visible=False, elem_id="diagnostics"),
            gr.HTML(visible=False, padding=False, elem_id="download"),
        ]
    parts += [
        gr.HTML(**heading),
        gr.HTML(visible=False, padding=False, elem_id="sheet"),
        gr.HTML(**heading),
        gr.HTML(visible=False, padding=False, elem_id="pictures"),
        gr.HTML(visible=False, padding=False, elem_id="curves"),
    ]
    with gr.Accordion(say("train.log"), open=False):
        parts.append(gr.HTML(padding=False, elem_id="log"))
    return parts


def updates(studio: Studio, name: str | None) -> list[dict[str, Any]]:
    """New properties of status, buttons, sheet, pictures, curves and log; empty ones are hidden."""
    view, job, lines = studio.runs.view(name), studio.queue.job(name), log(studio, name)
    when = say("train.base_pictures") if view.preview_step == 0 else say("train.pictures", step=view.preview_step)
    return [
        {"value": state(studio, name, view, lines)},
        {"visible": view.state == "running"},
        {"visible": view.state == "running"},
        {"visible": view.state == "running"},
        {"visible": view.can_go_on and (job is None or job.has_ended)},
        {"visible": is_broken(view, job)},
        _shown(download(view.file, say("train.download")) if view.file else ""),
        _heading(say("train.before_after"), view.before_after is not None),
        _shown(picture(view.before_after, say("train.before_after"))),
        _heading(when, bool(view.previews)),
        _shown(row(view.previews, when)),
        _shown(curves(view)),
        {"value": f"<pre class='log'>{html.escape(lines)}</pre>"},
    ]


def state(studio: Studio, name: str | None, view: View, lines: str) -> str:
    """The status, or why there is none; beside what went wrong the last of the log's ``lines``."""
    job = studio.queue.job(name)
    if view.state == "none":
        if job is not None and job.has_ended:
            return status(view, studio.queue.last_words(job.name) or say("train.no_words"))
        if job is not None and job.waits:
            return note(say("train.waiting")) + cannot_start(studio.queue)
        if job is not None and studio.queue.is_emptied(job.name):
            return note(say("train.emptied"), "bad")
        return note(say("state.starting") if name else say("train.none"))
    if not is_broken(view, job):
        return status(view)
    run, short = studio.runs.folder(name), "\n".join(lines.splitlines()[-LAST_LINES:])
    room = note(say("train.full_disk"), "bad") if run and watch.has_no_room(run) else ""
    last = f"<h3>{html.escape(say('train.last_lines'))}</h3><pre class='log'>{html.escape(short)}</pre>" if short else ""
    return status(view) + room + last


def is_broken(view: View, job: Job | None) -> bool:
    """Whether the run ended otherwise than it should have."""
    return view.state in ("failed", "interrupted") or (view.state == "none" and job is not None and job.has_ended)


def diagnosis(studio: Studio, name: str | None) -> Any:
    """What to copy of a run."""
    text = diagnostics.report(studio.runs.folder(name), studio.runs.view(name), log(studio, name))
    return gr.update(value=text, visible=True)


def curves(view: View) -> str:
    """Loss, and the loss on held-out pictures, over the steps; a mark at each checkpoint and export."""
    marks = [(saved.step, say("train.saved", step=saved.step, kind=saved.kind)) for saved in view.saved]
    loss = chart([Series(say("train.loss"), view.losses)], say("train.step"), say("train.loss"), marks)
    held = chart([Series(say("train.validation"), view.validation)], say("train.step"), say("train.validation"), marks)
    return f"<div class='charts'>{loss}{held}</div>" if loss or held else ""


def log(studio: Studio, name: str | None, lines: int = LOG_LINES) -> str:
    """The last lines of the run's log, or of what its process printed."""
    run = studio.runs.folder(name)
    files = ([run.log_file] if run else []) + ([studio.queue.log_of(name)] if name else [])
    return next((text for file in files if (text := tail(file, lines)) is not None), "")


def tail(file: Path, lines: int) -> str | None:
    """The last lines of a text file, of which only the end is read; None where there is no such file."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 200 * lines))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    return "\n".join(text.splitlines()[-lines:])


def _heading(text: str, visible: bool) -> dict[str, Any]:
    return {"value": f"<h3>{html.escape(text)}</h3>", "visible": visible}


def _shown(text: str) -> dict[str, Any]:
    return {"value": text, "visible": bool(text)}
