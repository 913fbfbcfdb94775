"""The first page: what this machine is, the shipped examples, and a run that is watched while it goes on."""

from __future__ import annotations

import html
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from app import watch
from app.jobs import Jobs
from app.watch import View
from trainer.presets import ROOT, list_presets

REFRESH_SECONDS = 1.5
DOCTOR_SECONDS = 120
FIRST = "pocket-loha"
PICTURE_BUTTONS: Any = ["download", "fullscreen"]
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
LOOK = {
    "theme": gr.themes.Soft(primary_hue="indigo", font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"]),
    "css_paths": [Path(__file__).parent.parent / "style.css"],
}
"""How gradio is told to draw; fonts of the machine, nothing from elsewhere."""

INTRO = """# MoreLoRA
**Style files for Stable Diffusion from a few pictures**: LoRA, LoHa, LoKr and DoRA.
The examples below run on this machine as it is, with the small base model that ships."""

TO_COME = """### Your own pictures
The whole page (pictures, captions, every setting, comparison of runs) is still to come.
Until then, the same training runs from a terminal:
```
python3 launch.py --images FOLDER --base MODEL_FOLDER --name my-style --trigger WORD
```"""

WORDS = {
    "starting": "Getting ready: loading the base model and reading the pictures …",
    "running": "Training",
    "done": "Done",
    "stopped": "Stopped; everything is saved",
    "failed": "Failed",
    "interrupted": "Interrupted",
}


def build(jobs: Jobs) -> gr.Blocks:
    """The page over the runs of ``jobs``."""
    with gr.Blocks(title="MoreLoRA", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(INTRO)
        device = gr.HTML(value=device_html("looking …"))
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                choices = [(preset.title, preset.name) for preset in list_presets() if preset.is_example]
                preset = gr.Radio(choices, value=FIRST, label="Examples", elem_id="presets")
                start = gr.Button("Start", variant="primary")
            with gr.Column(scale=2, min_width=300):
                run = gr.Dropdown(choices=[], label="Run", interactive=True)
                outputs = [run, *live_parts()]
        gr.Markdown(TO_COME, elem_id="to-come")
        _connect(page, jobs, {"device": device, "preset": preset, "start": start}, outputs)
    return page


def live_parts() -> list[Any]:
    """The components of ``updates``, in its order, and the memory of what the page shows already."""
    return [
        gr.HTML(value=status_html(None, "")),
        gr.Button("Stop and save", variant="stop", size="sm", visible=False),
        gr.DownloadButton("Download the adapter file", visible=False, variant="primary"),
        gr.HTML(visible=False),
        gr.Image(show_label=False, visible=False, interactive=False, type="filepath", buttons=PICTURE_BUTTONS),
        gr.HTML(visible=False),
        gr.Gallery(show_label=False, columns=6, visible=False, buttons=PICTURE_BUTTONS, elem_id="pictures"),
        gr.LinePlot(x="step", y="loss", height=220, title="Loss", visible=False),
        gr.State([]),
    ]


def _connect(page: gr.Blocks, jobs: Jobs, parts: dict[str, Any], outputs: list[Any]) -> None:
    """What happens on load, on each button, and every moment."""
    run, stop, seen = outputs[0], outputs[2], outputs[-1]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def show(name: str | None, shown: list[str]) -> list[Any]:
        names = jobs.names()
        name = name if name in names else next(iter(names), None)
        return [gr.update(choices=names, value=name), *refresh(jobs, name, shown)]

    def begin(preset: str, name: str | None) -> list[Any]:
        if jobs.is_busy():
            gr.Warning("A run is going on: wait for its end, or stop it.")
            return show(name, [])
        return show(jobs.start(preset), [])

    page.load(lambda: device_html(device_line()), outputs=parts["device"], **quiet)
    page.load(lambda: show(None, []), outputs=outputs, **quiet)
    parts["start"].click(begin, [parts["preset"], run], outputs, **quiet)
    stop.click(jobs.request_stop, run, None, **quiet)
    run.input(lambda name: show(name, []), run, outputs, **quiet)
    gr.Timer(REFRESH_SECONDS).tick(show, [run, seen], outputs, **quiet)


def refresh(jobs: Jobs, name: str | None, shown: list[str]) -> list[Any]:
    """Updates of the live parts; what the page shows already is not sent again."""
    run = jobs.run(name)
    new = updates(watch.look(run) if run else None, jobs.last_words(name) if name else "")
    keys = [f"{name} {update}" for update in new]
    old = shown if len(shown) == len(keys) else [""] * len(keys)
    changes = [gr.update(**update) if key != before else gr.skip() for update, key, before in zip(new, keys, old, strict=True)]
    return [*changes, keys]


def updates(view: View | None, last_words: str) -> list[dict[str, Any]]:
    """New properties of status, stop button, sheet, file, pictures and curve; empty ones are hidden."""
    view = view or View("none")
    when = "of the base model" if view.preview_step == 0 else f"at step {view.preview_step}"
    return [
        {"value": status_html(view, last_words)},
        {"visible": view.state == "running"},
        _file(view.file),
        _heading("Before and after", view.before_after is not None),
        _file(view.before_after),
        _heading(f"Pictures {when}", bool(view.previews)),
        {"value": [str(file) for file in view.previews], "visible": bool(view.previews)},
        {"value": curve(view.losses), "visible": len(view.losses) > 1},
    ]


def curve(points: list[tuple[int, float]]) -> dict[str, Any]:
    """Points in the form that the plot sends to the browser."""
    kinds = {"step": "quantitative", "loss": "quantitative"}
    return {"columns": list(kinds), "data": [list(point) for point in points], "datatypes": kinds, "mark": "line"}


def _heading(text: str, visible: bool) -> dict[str, Any]:
    return {"value": f"<h3>{html.escape(text)}</h3>", "visible": visible}


def _file(path: Path | None) -> dict[str, Any]:
    return {"value": str(path) if path else None, "visible": path is not None}


def status_html(view: View | None, last_words: str) -> str:
    """State, progress bar and numbers. Everything from outside is escaped."""
    if last_words:
        return f"<div class='status failed'><b>Failed</b><pre>{html.escape(last_words)}</pre></div>"
    if view is None or view.state == "none":
        return "<div class='status'>No run yet. Choose an example and press Start.</div>"
    share = 100 * view.step / view.steps if view.steps else 0
    parts = [f"<b>{WORDS[view.state]}</b>"]
    if view.steps:
        parts.append(f"<div class='bar'><div style='width:{share:.1f}%'></div></div>")
        parts.append(f"<div>{' · '.join(numbers(view))}</div>")
    if view.message:
        parts.append(f"<pre>{html.escape(view.message)}</pre>")
    parts += [f"<div class='quiet'>{html.escape(line)}</div>" for line in details(view)]
    return f"<div class='status {view.state}'>{''.join(parts)}</div>"


def numbers(view: View) -> list[str]:
    """``step 120 of 200``, the loss, the time left."""
    found = [f"step {view.step} of {view.steps}"]
    if view.loss is not None:
        found.append(f"loss {view.loss:.4f}")
    if view.state == "running" and view.seconds_left is not None:
        minutes, seconds = divmod(round(view.seconds_left), 60)
        found.append(f"{minutes}:{seconds:02d} left")
    return found


def details(view: View) -> list[str]:
    """What is trained, and the checks of the finished file."""
    plan = view.plan
    lines = [
        f"{part['component']}: {part['algorithm']}, {part['layers']} layers, {part['parameters']:,} parameters"
        for part in plan.get("trained", [])
    ]
    if plan:
        lines.append(f"{plan['pictures']} pictures, {plan['dropped']} dropped, on {plan['device']}")
    return lines + [f"Read back with {check}" for check in view.checks]


def device_html(text: str) -> str:
    """One quiet line."""
    return f"<div class='quiet'>Device: {html.escape(text)}</div>"


@cache
def device_line() -> str:
    """The doctor's first line, from a child process: this one imports no torch."""
    command = [sys.executable, "-m", "trainer", "--doctor"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DOCTOR_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "unknown (the doctor did not answer)"
    first = done.stdout.partition("\n")[0].removeprefix("device").strip()
    return first or "unknown; python3 launch.py --doctor says more"
