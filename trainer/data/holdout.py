"""Pictures that are never trained on: which ones, the same in every run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.config import DataConfig, ValidationConfig
from trainer.data.encoded import Encoded
from trainer.data.items import Dataset, Item
from trainer.data.problems import count, some
from trainer.data.scan import scan
from trainer.data.sources import Source
from trainer.data.views import Views
from trainer.errors import InputError


@dataclass(frozen=True)
class HeldOut:
    """The held-out pictures, encoded."""

    views: Views
    encoded: Encoded

    @property
    def items(self) -> tuple[Item, ...]:
        return self.views.dataset.items


def hold_out(dataset: Dataset, validation: ValidationConfig, data: DataConfig, factor: int = 8) -> Dataset:
    """The data set with its ``held_out`` pictures: those of ``validation.folder``, or some that are no longer trained on.

    Raises ``InputError`` for a folder or picture that cannot be used, or where nothing would be left to train on.
    """
    if not validation.is_on:
        return dataset
    if validation.folder:
        return _add(dataset, scan_folder(validation.folder, data, factor))
    return _split(dataset, validation)


def scan_folder(folder: str, data: DataConfig, factor: int) -> Dataset:
    """The pictures and captions of ``validation.folder``, under the settings of the run."""
    path = Path(os.path.expanduser(folder))
    return scan(data, factor, sources=[Source(path, "validation.folder", data)])


def _add(dataset: Dataset, held: Dataset) -> Dataset:
    place = len(dataset.sources)
    items = tuple(replace(item, source=place + item.source) for item in held.items)
    said = [f"validation: {count(len(items), 'picture')} in {some([str(source.path) for source in held.sources])}"]
    notes = (*dataset.notes, *said, *(f"validation: {note}" for note in held.notes))
    return replace(dataset, sources=(*dataset.sources, *held.sources), held_out=items, notes=notes)


def _split(dataset: Dataset, validation: ValidationConfig) -> Dataset:
    """Pictures are taken in the order of a hash of their pixels: an order that no name, seed or number of pictures changes.

    Equal pictures stay together, so that none is both trained on and held out. Regularisation pictures are all trained on.
    """
    candidates = sorted({item.sha256 for item in dataset.items if not item.regularization}, key=_rank)
    wanted = validation.count or max(1, round(validation.share * len(candidates)))
    if wanted >= len(candidates):
        raise InputError(
            f"validation holds out {wanted} of {count(len(candidates), 'different picture')}: none would be left to train on",
            "lower validation.count or validation.share, or give more pictures",
        )
    chosen = set(candidates[:wanted])
    held = tuple(item for item in dataset.items if item.sha256 in chosen and not item.regularization)
    kept = tuple(item for item in dataset.items if item.sha256 not in chosen)
    note = f"validation: {count(len(held), 'picture')} held out, never trained on: {_names(dataset, held)}"
    return replace(dataset, items=kept, held_out=held, notes=(*dataset.notes, note))


def _rank(sha256: str) -> str:
    return hashlib.sha256(f"held out {sha256}".encode()).hexdigest()


def _names(dataset: Dataset, items: tuple[Item, ...]) -> str:
    return some([dataset.name(item.path) for item in items])
