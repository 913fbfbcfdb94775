"""The training folder as items: which pictures, which captions, which buckets, and what the user should know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.config import DataConfig

Size = tuple[int, int]
"""Width, height in pixels."""


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
    background: str
    notes: tuple[str, ...]

    @property
    def report(self) -> Report:
        raise NotImplementedError

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every distinct text that training can ask for: the empty one (caption dropout) and the captions."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """sha256 over pictures, captions and buckets in order: equal for equal training data, wherever it lies."""
        raise NotImplementedError


def scan(
    config: DataConfig,
    factor: int = 8,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Read, decode and check every picture and caption of ``config.images``.

    ``factor`` is the VAE's reduction, which must divide ``config.bucket_step``; ``progress`` counts pictures.
    Raises ``InputError`` for a folder, picture or caption that cannot be used, ``StoppedError`` when ``should_stop()``.
    """
    raise NotImplementedError
