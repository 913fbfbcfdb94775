"""The runs in the output folder, and their events, of which only the new lines are read each time."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import watch
from app.draft import leaves
from app.watch import Samples, View
from trainer import presets
from trainer.errors import InputError
from trainer.run import RunDir


@dataclass
class Feed:
    """What has been read of one events file."""

    identity: tuple[int, int] = (0, 0)
    offset: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


class Runs:
    """Names, folders and views. A name is only taken where such a run is there, so that no other folder can be asked for."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._feeds: dict[str, Feed] = {}
        self._recipes: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All runs, the newest first."""
        folders = [path for path in self.output.glob("*") if _is_run(path)]
        return [path.name for path in sorted(folders, key=_born, reverse=True)]

    def folder(self, name: str | None) -> RunDir | None:
        """A run by its name; None where there is none."""
        path = self.output / str(name)
        return RunDir(path) if name and path.parent == self.output and path.name != ".." and _is_run(path) else None

    def view(self, name: str | None) -> View:
        """What a page shows of a run; the state ``none`` where there is none."""
        run = self.folder(name)
        return watch.look(run, self.events(run)) if run else View("none")

    def samples(self, name: str | None) -> Samples:
        """A run's pictures over its steps; empty where there is none."""
        run = self.folder(name)
        return watch.samples(run, self.events(run)) if run else Samples()

    def has_samples(self, name: str) -> bool:
        """Whether a run has told of pictures, without a look at the disk for each."""
        run = self.folder(name)
        return run is not None and watch.last(self.events(run), "Preview") is not None

    def recipe(self, name: str) -> dict[str, Any]:
        """A run's settings by dotted path, read again only where the file is another one; none where it cannot be read."""
        run = self.folder(name)
        try:
            status = run.config_file.stat() if run else None
        except OSError:
            status = None
        if run is None or status is None:
            return {}
        identity = (status.st_mtime_ns, status.st_size)
        kept = self._recipes.get(name)
        if kept is None or kept[0] != identity:
            kept = self._recipes[name] = (identity, _recipe(run))
        return kept[1]

    def events(self, run: RunDir) -> list[dict[str, Any]]:
        """All whole lines so far. A file that was written anew, as by a resumed run, is read anew."""
        with self._lock:
            feed = self._feeds.setdefault(run.path.name, Feed())
            try:
                with run.events_file.open("rb") as stream:
                    status = os.fstat(stream.fileno())
                    identity = (status.st_dev, status.st_ino)
                    if identity != feed.identity or status.st_size < feed.offset:
                        feed.identity, feed.offset, feed.events = identity, 0, []
                    stream.seek(feed.offset)
                    whole, newline, _ = stream.read().rpartition(b"\n")
            except OSError:
                self._feeds.pop(run.path.name, None)
                return []
            feed.offset += len(whole) + len(newline)
            feed.events += [event for line in whole.splitlines() if (event := _event(line))]
            return list(feed.events)


def _recipe(run: RunDir) -> dict[str, Any]:
    try:
        return dict(leaves(presets.load(str(run.config_file))))
    except InputError:
        return {}


def _is_run(path: Path) -> bool:
    return RunDir(path).config_file.is_file() and not path.is_symlink()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _born(path: Path) -> float:
    try:
        return RunDir(path).config_file.stat().st_mtime
    except OSError:
        return 0.0
