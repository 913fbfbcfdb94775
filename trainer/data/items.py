"""The training data as values: items, and the report that the plan shows."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.data import tags, wildcards
from trainer.data.buckets import Size
from trainer.data.problems import shown
from trainer.data.sources import Source, namer


@dataclass(frozen=True)
class Item:
    """One picture and its captions. ``width`` and ``height`` are those of the upright picture before any resize."""

    path: Path
    captions: tuple[str, ...]
    """What the text encoder may read, at least one: the trigger word is in each."""
    plain: tuple[str, ...]
    """The captions in the same order without the trigger word: what the base model is asked for prior preservation."""
    caption_source: str
    """``.txt``, ``.caption``, ``.json``, a table's name, ``data.caption``, ``folder name`` or ``file name``."""
    width: int
    height: int
    sha256: str
    """Of the size and the upright RGB pixels on ``data.background``: equal pictures have equal hashes."""
    bucket: Size
    """That of ``data.resolution``."""
    more_buckets: tuple[Size, ...] = ()
    """Those of the other ``data.resolutions`` that the picture is large enough for."""
    source: int = 0
    """Index into ``Dataset.sources``."""
    caption_file: Path | None = None
    """File that the captions were read from; none where nobody wrote them."""
    mask: Path | None = None
    """File that the mask of the loss is read from, by ``masks.load``: the picture itself where its alpha channel is the mask."""
    mask_sha256: str = ""
    """Of the mask's values at the picture's size; empty where the whole picture counts."""
    regularization: bool = False
    loss_weight: float = 1.0
    remarks: frozenset[str] = frozenset()
    """What was noticed of the picture (``images.TRANSPARENT`` ...) and of its captions (``captions.NO_TRIGGER`` ...)."""

    @property
    def size(self) -> Size:
        """Width, height."""
        return self.width, self.height

    @property
    def buckets(self) -> tuple[Size, ...]:
        """Every size that the picture is trained at."""
        return self.bucket, *self.more_buckets

    @property
    def caption(self) -> str:
        """One text of the first caption, where one must stand for all."""
        return tags.whole(wildcards.expand(self.captions[0], random.Random(0)))  # noqa: S311


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
    """The items, sorted by source and name, and what was noticed on the way."""

    items: tuple[Item, ...]
    sources: tuple[Source, ...]
    background: tuple[int, int, int]
    """Colour under transparent pictures."""
    notes: tuple[str, ...]
    sizes: int = 1
    """Resolutions that pictures may be trained at."""
    held_out: tuple[Item, ...] = ()
    """Pictures of the validation loss: never trained on, and not among ``items``."""

    @property
    def validation(self) -> Dataset:
        """The held-out pictures as a data set of their own."""
        return replace(self, items=self.held_out, held_out=())

    @property
    def report(self) -> Report:
        """Counts and notes for the plan."""
        captions = Counter(item.caption_source for item in self.items)
        buckets = Counter(bucket for item in self.items for bucket in item.buckets)
        named = {f"{width}x{height}": number for (width, height), number in sorted(buckets.items())}
        return Report(len(self.items), dict(captions), named, dropped=0, notes=list(self.notes))

    def name(self, file: Path) -> str:
        """How a file of the set is called in messages."""
        return namer(self.sources)(file)

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is known of each picture, the held-out ones last, as plain values."""
        name = namer(self.sources)
        everything = [(item, False) for item in self.items] + [(item, True) for item in self.held_out]
        for item, held_out in everything:
            yield {
                "picture": name(item.path),
                "captions": item.captions,
                "caption_source": item.caption_source,
                "caption_file": item.caption_file and shown(item.caption_file.name),
                "size": item.size,
                "buckets": item.buckets,
                "repeats": self.sources[item.source].settings.repeats,
                "mask": item.mask and shown(item.mask.name),
                "regularization": item.regularization,
                "held_out": held_out,
                "sha256": item.sha256,
            }

    @property
    def repeats(self) -> tuple[int, ...]:
        """Times that each item is seen in an epoch."""
        return tuple(self.sources[item.source].settings.repeats for item in self.items)

    @property
    def fingerprint(self) -> str:
        """sha256 over what is trained on, in order: equal for equal training data, wherever it lies."""
        content = [
            (item.sha256, item.mask_sha256, item.captions, item.buckets, repeats, item.regularization, item.loss_weight)
            for item, repeats in zip(self.items, self.repeats, strict=True)
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
