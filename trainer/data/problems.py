"""How problems and names are put into words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LISTED = 50


class Unusable(ValueError):
    """One file cannot be used; the message is the reason, without the file's name."""


def shown(name: str | Path) -> str:
    """A file's name that every screen and file can hold, also where its bytes are no text."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def some(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def count(number: int, thing: str) -> str:
    """``1 picture``, ``2 pictures``, ``2 batches``."""
    ending = "" if number == 1 else "es" if thing.endswith("ch") else "s"
    return f"{number} {thing}{ending}"


def listing(lines: Sequence[str]) -> str:
    """One line each, indented; the first fifty and how many more there are."""
    rest = len(lines) - LISTED
    return "\n".join(f"  {line}" for line in [*lines[:LISTED], *([f"and {rest} more"] if rest > 0 else [])])
