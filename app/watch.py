"""A run folder's events as what a page shows. Reads only, so any number of pages may look at one run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.run import RunDir

MOST_POINTS = 300
"""Points of a curve at most; more only slow the page."""

LEAST_ROOM = 2**20
"""Free bytes of a disk below which nothing can be saved there."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class SavedAt:
    """A checkpoint or an exported file, and its step."""

    step: int
    kind: str
    file: str


@dataclass(frozen=True)
class View:
    """What is known of a run now. ``state``: none, starting, running, done, stopped, failed or interrupted."""

    state: str
    message: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    saved: tuple[SavedAt, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    preview_step: int | None = None
    previews: tuple[Path, ...] = ()
    before_after: Path | None = None
    file: Path | None = None
    checks: tuple[str, ...] = ()

    @property
    def can_go_on(self) -> bool:
        """Whether ``--resume`` has something to do."""
        return self.state in ("stopped", "failed", "interrupted")


@dataclass(frozen=True)
class Samples:
    """The pictures of all previews: step and files in the order of steps, the newest of a step; ``prompts`` of the last one.

    A file that is no longer there is None: the others stay at their prompts.
    """

    steps: tuple[tuple[int, tuple[Path | None, ...]], ...] = ()
    prompts: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What each picture of a step shows: its prompt, or its number where an older run did not keep them."""
        count = max((place for _, files in self.steps for place, file in enumerate(files, 1) if file), default=0)
        return list(self.prompts) if len(self.prompts) >= count else [str(number + 1) for number in range(count)]


def look(run: RunDir, events: Sequence[Event]) -> View:
    """The run as its folder and its events show it now."""
    plan = (last(events, "Started") or {}).get("plan", {})
    steps = [event for event in events if event["event"] == "Step"]
    now = steps[-1] if steps else {}
    preview = last(events, "Preview")
    state, message = state_of(events, run.is_held())
    finished = last(events, "Finished") if state in ("done", "stopped") else None
    total = int(plan.get("steps", 0))
    return View(
        state=state,
        message=message,
        step=int(now.get("step", 0)),
        steps=total,
        loss=now.get("loss"),
        seconds_left=(total - now["step"]) / now["rate"] if now.get("rate") else None,
        losses=smooth([(event["step"], event["loss"]) for event in steps]),
        validation=[(event["step"], event["loss"]) for event in events if event["event"] == "Validated"],
        saved=tuple(SavedAt(event["step"], event["kind"], event["file"]) for event in events if event["event"] == "Saved"),
        plan=plan,
        preview_step=preview["step"] if preview else None,
        previews=tuple(existing(run, preview["files"])) if preview else (),
        before_after=run.before_after if state == "done" and run.before_after.is_file() else None,
        file=next(iter(existing(run, [finished["file"]])), None) if finished else None,
        checks=tuple(check_text(event) for event in events if event["event"] == "Verified"),
    )


def samples(run: RunDir, events: Sequence[Event]) -> Samples:
    """Every preview's pictures, of which each is looked for on the disk: for the pages that show them, not for every look."""
    previews = [event for event in events if event["event"] == "Preview"]
    found = {event["step"]: tuple(placed(run, event["files"])) for event in previews}
    steps = tuple((step, found[step]) for step in sorted(found) if any(found[step]))
    return Samples(steps, tuple(previews[-1].get("prompts", ())) if previews else ())


def state_of(events: Sequence[Event], held: bool) -> tuple[str, str]:
    """The state and what there is to say of it, from the last event that decides it."""
    told = [event for event in events if event["event"] in ("Started", "Step", "Finished", "Failed")]
    deciding = [event for event in told if event["event"] != "Step"] or told[-1:]
    if held or not deciding:
        return ("running" if deciding else "starting"), ""
    event = deciding[-1]
    if event["event"] == "Failed":
        return "failed", event["message"]
    if event["event"] == "Finished":
        return ("done" if event["reason"] == "done" else "stopped"), ""
    return "interrupted", "The process ended without a word. Its checkpoints are whole: go on with --resume."


def has_no_room(run: RunDir) -> bool:
    """Whether the run's disk is as good as full."""
    try:
        return shutil.disk_usage(run.path).free < LEAST_ROOM
    except OSError:
        return False


def last(events: Sequence[Event], kind: str) -> Event | None:
    """The newest event of a kind."""
    return next((event for event in reversed(events) if event["event"] == kind), None)


def existing(run: RunDir, names: Sequence[str]) -> list[Path]:
    """Files named by an event that lie inside the run folder and exist."""
    return [file for file in placed(run, names) if file]


def placed(run: RunDir, names: Sequence[str]) -> list[Path | None]:
    """The same, with None in the place of each other one."""
    home = run.path.resolve()
    files = [(run.path / name).resolve() for name in names]
    return [file if file != home and file.is_relative_to(home) and file.is_file() else None for file in files]


def smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means of neighbouring points, at most ``MOST_POINTS`` of them: single losses jump too much to be read."""
    width = max(5, -(-len(points) // MOST_POINTS)) if len(points) >= 20 else 1
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def check_text(event: Event) -> str:
    """A reader's verdict on the finished file."""
    return f"{event['reader']}: {event['message']}"
