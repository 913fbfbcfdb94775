"""How far a command is: a line that is written over on a terminal, a line for each quarter elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


def progress(items: Collection[T], what: str, stream: TextIO | None = None) -> Iterator[T]:
    """The items, one after the other; says how many are done on ``stream`` (default: standard error)."""
    stream = stream or sys.stderr
    total = len(items)
    quarters = {total * quarter // 4 for quarter in (1, 2, 3, 4)}
    for done, item in enumerate(items, 1):
        yield item
        if stream.isatty():
            end = "\n" if done == total else ""
            stream.write(f"\r{what}: {done} of {total}{end}")
            stream.flush()
        elif done in quarters:
            stream.write(f"{what}: {done} of {total}\n")
