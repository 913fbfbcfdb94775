"""What the pages work with: the runs, the queue, the recipe being edited, own presets, and the process that answers questions."""

from __future__ import annotations

import html
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk, Refused
from app.draft import Draft
from app.files import FILES, Files
from app.own import Own
from app.parts import verdict
from app.pictures import DATASETS, Pictures
from app.places import Places
from app.queue import Queue
from app.runs import Runs
from app.trials import TRIALS, Trials
from trainer import presets

STATE = ".app"
"""Folder of the server's own files among the runs; never served."""
LONGEST_SECONDS = 1800.0


class Studio:
    """One for the server; every page is handed it. ``folders`` are what it may read beside its own; None opens all.

    ``process`` answers its questions, where one was started before, by ``app.desk.start``.
    """

    def __init__(self, output: Path, folders: Sequence[Path] | None = None, process: ProcessPoolExecutor | None = None) -> None:
        self.output = output
        self.state = output / STATE
        self.state.mkdir(parents=True, exist_ok=True)
        self.runs = Runs(output)
        self.queue = Queue(output, self.state)
        self.draft = Draft(self.state / "draft.json")
        own = (output, *(output.parent / name for name in (DATASETS, FILES, presets.OWN)))
        self.places = Places(None if folders is None else [*own, *folders])
        self.desk = Desk(self.places, process)
        self.own = Own(output.parent / presets.OWN)
        self.pictures = Pictures(output.parent / DATASETS, self.draft, self.desk)
        self.trials = Trials(output.parent / TRIALS, self.desk.ask)
        self.files = Files(output.parent / FILES, self.desk.ask, self.apart)

    @cached_property
    def schema(self) -> list[dict[str, Any]]:
        """Every setting as a row; asked once."""
        return self.desk.ask("schema")

    def setting(self, path: str) -> dict[str, Any]:
        """A setting's row by its path, such as ``export.format``."""
        return next(row for row in self.schema if row["path"] == path)

    def judge(self) -> dict[str, Any]:
        """The draft as ``trainer.answers.check`` judges it; ``problem`` also where no answer came."""
        try:
            return self.desk.ask("check", self.draft.values)
        except Refused as error:
            return {"problem": str(error), "toml": "", "missing": [], "whole": {}, "no_effect": {}}

    def start_draft(self) -> str:
        """Put the draft into the queue; returns its run's name, or '' after a word to the user where it cannot run."""
        judged = self.judge()
        hindrance = judged["problem"] or verdict.lacks(judged["missing"])
        if hindrance:
            gr.Warning(html.escape(hindrance))
            return ""
        return self.queue.add(judged["toml"], judged["whole"]["run"]["name"])

    def take_recipe(self, toml: str) -> str:
        """Make a recipe the draft, to be run here; returns 'yes', or '' after a word to the user where it is none."""
        try:
            values = self.desk.ask("read", toml)
        except Refused as error:
            gr.Warning(html.escape(str(error)))
            return ""
        values.get("run", {}).pop("output", None)
        self.draft.begin(values)
        return "yes"

    def rehearse(self) -> dict[str, Any]:
        """The draft's dry run. Raises ``Refused``."""
        return self.apart("rehearse", self.draft.values)

    def apart(self, question: str, *given: Any) -> Any:
        """Ask a process of its own that ends with the answer, so that no model stays in memory. Raises ``Refused``."""
        desk = Desk(self.places)
        try:
            return desk.ask(question, *given, timeout=LONGEST_SECONDS)
        finally:
            desk.close()

    def names(self) -> list[str]:
        """Runs to choose from: those that wait or failed before they had a folder, then those with one, the newest first."""
        made = self.runs.names()
        return [job.name for job in reversed(self.queue.jobs()) if job.name not in made] + made

    def close(self) -> None:
        """End what the server started for itself; runs go on."""
        self.queue.close()
        self.desk.close()
