"""The recipe that the pages edit: a preset and what was changed in it. One for the server, in a file, so that a reload, a second
tab and a restart show the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.store import Store
from trainer import presets

FIRST = "pocket-lora"

Values = dict[str, Any]


class Draft:
    """Nested values as they will be trained. ``start`` is what they are compared with: the preset's own."""

    def __init__(self, file: Path) -> None:
        self._store = Store(file)

    @property
    def preset(self) -> str:
        """Name of the shipped preset, or file of the user's, that the recipe began with; '' for one from elsewhere."""
        return str(self._store.read().get("preset", FIRST))

    @property
    def values(self) -> Values:
        """What will be trained."""
        found = self._store.read()
        return found["values"] if "values" in found else presets.load(FIRST)

    @property
    def start(self) -> Values:
        """What the recipe began with."""
        found = self._store.read()
        return found["start"] if "start" in found else presets.load(FIRST)

    def begin(self, values: Values, preset: str = "") -> None:
        """Take another recipe; nothing in it counts as changed."""
        with self._store.change() as kept:
            kept.update(preset=preset, start=copy.deepcopy(values), values=copy.deepcopy(values))

    def put(self, changes: Mapping[str, Any]) -> None:
        """Set values by dotted path; None takes one out."""
        with self._store.change() as kept:
            kept.setdefault("preset", FIRST)
            kept.setdefault("start", presets.load(FIRST))
            kept.setdefault("values", copy.deepcopy(kept["start"]))
            for path, value in changes.items():
                put(kept["values"], path, value)

    def replace(self, values: Values) -> None:
        """Set all values at once; compared with the same start as before."""
        with self._store.change() as kept:
            kept.setdefault("preset", FIRST)
            kept.setdefault("start", presets.load(FIRST))
            kept["values"] = copy.deepcopy(values)

    def reset(self, paths: list[str]) -> None:
        """Take changes back."""
        start = dict(leaves(self.start))
        self.put({path: start.get(path) for path in paths})

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """What was changed: before and now by dotted path, None where it is not set."""
        before, now = dict(leaves(self.start)), dict(leaves(self.values))
        paths = list(dict.fromkeys([*before, *now]))
        return {path: (before.get(path), now.get(path)) for path in paths if before.get(path) != now.get(path)}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values; a list is one value, and so is a table of free names such as ``optimizer.options``."""
    for name, value in values.items():
        if isinstance(value, dict) and prefix == "":
            yield from leaves(value, f"{name}.")
        else:
            yield f"{prefix}{name}", value


def put(values: Values, path: str, value: Any) -> None:
    """Set ``section.name``; None takes it out, and the section with its last value."""
    section, _, name = path.partition(".")
    place = values.setdefault(section, {})
    if value is None:
        place.pop(name, None)
    else:
        place[name] = value
    if not place:
        del values[section]
