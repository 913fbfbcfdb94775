"""A run on the terminal: the statement before it, a progress bar or plain lines during it, the result after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from morelora.formats.container import read_metadata
from morelora.formats.sidecar import ENTRY
from trainer.data.problems import count
from trainer.events import (
    Event,
    Failed,
    Finished,
    Formed,
    Linted,
    Preview,
    Saved,
    Searched,
    Started,
    Step,
    Validated,
    Verified,
    Warned,
)
from trainer.lint.report import summary, table
from trainer.run import EMBEDDING, RunDir

PLAIN_WIDTH = 120
PLAIN_LINES = 20
"""About this many progress lines where the output is no terminal."""


class Console:
    """Shows events. Use as a context manager: leaving it puts the terminal back."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.out = rich.console.Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        if not self.out.is_terminal:
            self.out.width = PLAIN_WIDTH
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.plan: Mapping[str, Any] = {}
        self.finished: Finished | None = None
        self.handlers: dict[type[Event], Callable[[Any], None]] = {
            Linted: self._linted, Started: self._started, Step: self._step, Preview: self._preview, Saved: self._saved,
            Searched: self._searched,
            Validated: self._validated, Warned: self._warned, Formed: self._formed, Verified: self._verified,
            Finished: self._finished,
        }  # fmt: skip

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_bar()

    def __call__(self, event: Event) -> None:
        """Show one event. A ``Failed`` is left to whoever ends the process with its message."""
        handler = self.handlers.get(type(event))
        if handler:
            handler(event)
        elif isinstance(event, Failed):
            self._stop_bar()

    def say(self, text: str) -> None:
        """One line, above the bar where there is one."""
        self.out.print(text, markup=False)

    def _linted(self, event: Linted) -> None:
        if event.findings:
            self.out.print(table(event.findings))
        self.say(f"Pictures and captions: {summary(event.findings)}.")

    def _started(self, event: Started) -> None:
        self.plan = event.plan
        self.out.print(statement(event.plan))
        for note in event.plan["notes"]:
            self.say(f"Note: {note}")
        if event.step:
            self.say(f"Going on after step {event.step}.")
        if self.out.is_terminal and event.plan["steps"]:
            self._start_bar(event.plan["steps"], event.step)

    def _start_bar(self, steps: int, done: int) -> None:
        columns = [BarColumn(), TextColumn("{task.completed}/{task.total}"), TextColumn("{task.fields[text]}")]
        self.progress = Progress(*columns, console=self.out)
        self.task = self.progress.add_task("", total=steps, completed=done, text="")
        self.progress.start()

    def _stop_bar(self) -> None:
        if self.progress:
            self.progress.stop()
            self.progress = None

    def _step(self, event: Step) -> None:
        steps = int(self.plan.get("steps", event.step))
        text = step_text(event, steps)
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=event.step, text=text)
        elif event.step % max(1, steps // PLAIN_LINES) == 0 or event.step == steps:
            self.say(f"step {event.step}/{steps}  {text}")

    def _preview(self, event: Preview) -> None:
        what = "of the base model" if event.step == 0 else f"at step {event.step}"
        more = f" and {len(event.files) - 1} more" if len(event.files) > 1 else ""
        self.say(f"Pictures {what}: {event.files[0]}{more}" if event.files else f"No pictures {what}")

    def _validated(self, event: Validated) -> None:
        what = "base model" if event.step == 0 else f"step {event.step}"
        bins = ", ".join(f"t {name}: {loss:.4f}" for name, loss in event.by_bin.items())
        self.say(f"Validation, {what}: loss {event.loss:.4f} ({bins})")

    def _searched(self, event: Searched) -> None:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in event.losses.items())
        self.say(f"Search, {event.procedure}: {event.chosen} is kept (loss of {losses})")

    def _saved(self, event: Saved) -> None:
        self.say(f"Saved at step {event.step}: {event.file} ({event.kind})")

    def _warned(self, event: Warned) -> None:
        self.say(f"Note: {event.message}")

    def _formed(self, event: Formed) -> None:
        self.say(f"Note: {event.statement}")

    def _verified(self, event: Verified) -> None:
        self.say(verified_text(event))

    def _finished(self, event: Finished) -> None:
        self._stop_bar()
        self.finished = event
        self.say(f"{'Done' if event.reason == 'done' else f'Ended ({event.reason})'} after {event.step} steps.")

    def show_result(self, run: Path) -> None:
        """The last lines: what a finished run left in its folder."""
        if self.finished and self.finished.file:
            for line in result_lines(RunDir(run.resolve()), self.finished.file):
                self.say(line)


def statement(plan: Mapping[str, Any]) -> Table:
    """What will be trained, as a table of two columns."""
    table = Table(title=f"What will be trained: {plan['name']}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in statement_rows(plan):
        table.add_row(key, value)
    return table


def statement_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The statement's rows: what, in words."""
    rows = [("base model", f"{plan['base']} ({plan['family']}, objective {plan['objective']})")]
    rows += [("device", f"{plan['device']}, precision {plan['precision']}")]
    rows += [(part["component"], _part_text(part)) for part in plan["trained"]]
    if not any(part["component"].startswith("text_encoder") for part in plan["trained"]):
        rows += [("text encoder", "not trained")]
    rows += [("pictures", f"{plan['pictures']}, dropped {plan['dropped']}")]
    rows += [("captions", _counts(plan["captions"], "from ") or "none")]
    rows += [("buckets", _counts(plan["buckets"]))]
    pictures = count(plan["batch_size"], "picture")
    rows += [("steps", f"{plan['steps']} of {pictures} = {plan['epochs']:.4g} epochs")]
    rows += [("checkpoints", str(plan["checkpoints"]))]
    rows += estimate_rows(plan.get("estimate"))
    return rows


def estimate_rows(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the run will take; nothing where it was not measured."""
    if found is None:
        return []
    share = f"base {size_text(found['weights'])}, adapters and optimiser {size_text(found['trained'])}"
    return [
        ("memory", f"{size_text(found['memory'])} at the peak ({share}) of {size_text(found['available'])}"),
        ("time", f"{found['step_seconds']:.3g} s a step, {duration(found['seconds'])} for the steps"),
        ("disk", f"{size_text(found['disk'])} of {size_text(found['disk_free'])}"),
    ]


def size_text(size: int) -> str:
    """``3.2 GiB``, ``41 MiB``."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def step_text(event: Step, steps: int) -> str:
    """``loss 0.1234  2.5 steps/s  0:01:20 left``."""
    speed = f"{event.rate:.3g} steps/s" if event.rate >= 1 or not event.rate else f"{1 / event.rate:.3g} s/step"
    left = f"  {duration((steps - event.step) / event.rate)} left" if event.rate else ""
    return f"loss {event.loss:.4f}  lr {event.lr:.3g}  {speed}{left}"


def duration(seconds: float) -> str:
    """``0:01:20``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


def verified_text(event: Verified) -> str:
    """Whether a reader reproduced the change."""
    return f"Read back with {event.reader}: {event.message or f'{event.layers} layers, relative error {event.error}'}"


def result_lines(run: RunDir, name: str) -> list[str]:
    """Where the files are and what to paste to use them."""
    file = run.path / name
    is_word = any(event["event"] == "Saved" and (event["file"], event["kind"]) == (name, "embedding") for event in run.events())
    word = file if is_word else file.with_name(f"{file.stem}{EMBEDDING}.safetensors")
    sheet = [f"Before and after:  {run.before_after}"] if run.before_after.is_file() else []
    who = read_metadata(file).get(ENTRY) if file.is_file() else None
    adapter = [
        f"In web UIs:  {who}"
        if who
        else f"In A1111 or Forge, put the file into models/Lora and write in the prompt:  <lora:{file.stem}:1>",
        f'In diffusers:  import morelora; morelora.load(pipe, r"{file}")',
    ]
    embedding = [
        f"The word: in A1111 or Forge, put {word.name} into embeddings and write in the prompt:  {word.stem}",
        f'The word in diffusers:  import morelora; morelora.load_embedding(pipe, r"{word}")',
    ]
    lines = [*([] if is_word else adapter), *(embedding if word.is_file() else []), *sheet]
    return [*lines, f"Embedding file:  {file}" if is_word else f"Adapter file:  {file}"]


def _part_text(part: Mapping[str, Any]) -> str:
    what = "vectors" if part["algorithm"].startswith("word ") else "layers"
    text = f"{part['algorithm']}: {part['layers']} {what}, {part['parameters']:,} parameters, lr {part['lr']:.3g}"
    return f"{text}, {strength_text(part['strength'], part['usual'])}" if part.get("strength") else text


def strength_text(strength: float, usual: tuple[float, float] | None) -> str:
    """The effective strength beside the usual range; a note says where it lies outside."""
    return f"effective strength {strength:.3g}" + (f" (usual {usual[0]:.3g} to {usual[1]:.3g})" if usual else "")


def _counts(counts: Mapping[str, int], prefix: str = "") -> str:
    return ", ".join(f"{number} {prefix}{name}" if prefix else f"{name}: {number}" for name, number in counts.items())
