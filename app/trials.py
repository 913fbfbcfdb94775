"""What was tried: a folder for each prompt, drawn with and without adapters by a child process, one at a time.

The folders are all there is to know, so a reload, a second tab and a restart of the server show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import children
from app.children import Child
from app.desk import Refused
from app.store import Store, write_text
from app.text import say
from trainer import presets
from trainer.errors import InputError
from trainer.trial import DONE, TrialDir

TRIALS = "trials"
"""Folder beside the runs: one folder a trial, by number."""
LAST_WORDS = 2000
"""Characters of a child's log that are shown."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """A trial as a page shows it. ``state``: drawing, done, cancelled or failed."""

    name: str
    state: str
    values: Values
    stage: str = ""
    step: int = 0
    steps: int = 0
    message: str = ""
    base: Path | None = None
    adapted: Path | None = None
    adapters: tuple[tuple[str, float], ...] = field(default=())

    @property
    def sampling(self) -> Values:
        """The settings of ``preview``."""
        return self.values.get("preview", {})

    @property
    def prompt(self) -> str:
        return str(next(iter(self.sampling.get("prompts", [])), ""))


class Trials:
    """The folders, and the one child that draws."""

    def __init__(self, folder: Path, ask: Callable[..., Any], start: Callable[[list[str], Path], Child] = children.start) -> None:
        self.folder, self._ask, self._start = folder, ask, start
        self._store = Store(folder / ".drawing.json")

    def names(self) -> list[str]:
        """All trials, the newest first."""
        found = [path.name for path in self.folder.glob("*") if path.name.isdigit() and TrialDir(path).recipe_file.is_file()]
        return sorted(found, key=int, reverse=True)

    def drawing(self) -> str:
        """The trial that is being drawn; '' where none is."""
        kept = self._store.read()
        return kept["name"] if kept and _child(kept).lives() else ""

    def look(self, name: str | None) -> Tried | None:
        """A trial by its name; None where there is none."""
        return self._look(name) if name in self.names() else None

    def past(self, most: int) -> list[Tried]:
        """The newest trials."""
        return [self._look(name) for name in self.names()[:most]]

    def _look(self, name: str) -> Tried:
        trial = TrialDir(self.folder / name)
        told, (values, adapters) = trial.state(), _recipe(trial)
        state = "done" if told.get("stage") == DONE else "drawing" if self.drawing() == name else "failed"
        if state == "failed" and trial.cancel_file.exists():
            state = "cancelled"
        pictures = [file if file.is_file() else None for file in (trial.base, trial.adapted)]
        return Tried(
            name, state, values, str(told.get("stage", "")), int(told.get("step", 0)), int(told.get("steps", 0)),
            children.last_words(trial.log_file, LAST_WORDS) if state == "failed" else "", *pictures, adapters,
        )  # fmt: skip

    def add(self, values: Values) -> str:
        """Begin a trial; returns its name.

        Raises:
            Refused: it cannot be drawn, with the reason, or another one is being drawn.
        """
        toml = self._ask("check_trial", values)
        with self._store.change() as kept:
            if kept and _child(kept).lives():
                raise Refused(say("tryit.busy"))
            number = max(map(int, self.names()), default=0) + 1
            while (self.folder / f"{number:06d}").exists():
                number += 1
            trial = TrialDir(self.folder / f"{number:06d}")
            write_text(trial.recipe_file, toml)
            child = self._start(["--try", str(trial.recipe_file)], trial.log_file)
            kept.update(name=trial.path.name, pid=child.pid, born=child.born)
        return trial.path.name

    def cancel(self) -> None:
        """End what is being drawn, at once; a picture that is whole stays."""
        if not self.drawing():
            return
        with self._store.change() as kept:
            if kept and _child(kept).lives():
                TrialDir(self.folder / kept["name"]).cancel_file.touch()
                _child(kept).kill()


def _child(kept: Mapping[str, Any]) -> Child:
    return Child(kept["pid"], kept["born"])


def _recipe(trial: TrialDir) -> tuple[Values, tuple[tuple[str, float], ...]]:
    """What was asked for, and its adapters with their strengths; nothing of a file that someone broke."""
    try:
        values = presets.load(str(trial.recipe_file))
        adapters = tuple((str(each["file"]), float(each["strength"])) for each in values.pop("adapters", []))
        sections = {name: dict(section) for name, section in values.items()}
        prompts = [str(prompt) for prompt in sections["preview"]["prompts"]]
    except (InputError, KeyError, TypeError, ValueError):
        return {}, ()
    sections["preview"]["prompts"] = prompts
    return sections, adapters
