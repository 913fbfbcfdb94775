"""What of this machine's disk a page may lead to. Where only its user reaches it, everything; over a network, what was shared.

Every question to a process that reads files goes through here, so that no field of any page has to think of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.text import say
from trainer.presets import ROOT


class Places:
    """``folders`` and the program's own are open, with all below them; None opens everything."""

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._open = None if folders is None else [folder.resolve() for folder in (ROOT, *folders)]

    def closed(self, given: Any) -> str:
        """Why values may not be used: the first text in them that leads elsewhere, and what to do; '' where none does."""
        if self._open is not None:
            for text in _texts(given):
                if not self._has(text):
                    return say("error.place", path=text)
        return ""

    def _has(self, text: str) -> bool:
        """Whether a text is no path, leads to nothing, or leads to an open place; links are followed."""
        assert self._open is not None
        try:
            path = (ROOT / Path(text).expanduser()).resolve()
            return not path.exists() or any(path.is_relative_to(folder) for folder in self._open)
        except (OSError, ValueError, RuntimeError):
            return True


def _texts(given: Any) -> Iterator[str]:
    """Every text in nested values, names too."""
    if isinstance(given, str | Path):
        yield str(given)
    elif isinstance(given, Mapping):
        for name, value in given.items():
            yield from _texts(name)
            yield from _texts(value)
    elif isinstance(given, list | tuple | set):
        for value in given:
            yield from _texts(value)
