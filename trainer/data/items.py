"""The training data as values: items, and the report that the plan shows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainer.data.buckets import Size


@dataclass(frozen=True)
class Item:
    """One picture and its caption. ``width`` and ``height`` are those of the upright picture before any resize."""

    path: Path
    caption: str
    """What the text encoder reads: the trigger word is in it."""
    caption_source: str
    """``.txt``, ``.caption`` or ``file name``."""
    width: int
    height: int
    sha256: str
    """Of the size and the upright RGB pixels on ``data.background``: equal pictures have equal hashes."""
    bucket: Size

    @property
    def size(self) -> Size:
        """Width, height."""
        return self.width, self.height


@dataclass(frozen=True)
class Report:
    """What the plan says of the data."""

    pictures: int
    captions: dict[str, int]
    """Pictures by the source of their caption."""
    buckets: dict[str, int]
    """Pictures by bucket, ``64x64`` (width x height)."""
    dropped: int
    """Always 0: a picture that cannot be used is an error."""
    notes: list[str]


@dataclass(frozen=True)
class Dataset:
    """The items, sorted by name, and what was noticed on the way."""

    items: tuple[Item, ...]
    background: tuple[int, int, int]
    """Colour under transparent pictures."""
    notes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """Counts and notes for the plan."""
        captions = Counter(item.caption_source for item in self.items)
        buckets = Counter(item.bucket for item in self.items)
        named = {f"{width}x{height}": number for (width, height), number in sorted(buckets.items())}
        return Report(len(self.items), dict(captions), named, dropped=0, notes=list(self.notes))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every distinct text that training can ask for: the empty one (caption dropout) and the captions."""
        return tuple(dict.fromkeys(["", *(item.caption for item in self.items)]))

    @property
    def fingerprint(self) -> str:
        """sha256 over pictures, captions and buckets in order: equal for equal training data, wherever it lies."""
        content = [(item.sha256, item.caption, item.bucket) for item in self.items]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
