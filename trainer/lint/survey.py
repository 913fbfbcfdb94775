"""From a data set to the view that the rules look at: every picture is decoded and measured once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer.config import Config
from trainer.data import Dataset, Item, hold_out, images, scan
from trainer.data.captions import EMPTY, NO_TRIGGER
from trainer.data.looks import THREADS
from trainer.data.scan import UnusableFiles
from trainer.lint.finding import Finding
from trainer.lint.measures import measure
from trainer.lint.registry import check
from trainer.lint.view import Picture, View
from trainer.models import find, overflow_of

ROUNDS = 4
"""Times that a folder is read again without what could not be used: pictures, then captions, then what is too small."""


def lint(dataset: Dataset, config: Config, overflow: Callable[[str], str]) -> list[Finding]:
    """What the rules find in a data set that is ready to be trained on."""
    return check(survey(dataset, config, overflow))


def lint_folder(config: Config) -> tuple[list[Finding], Sequence[str]]:
    """What the rules find in the folders of the settings, and what a training would note of them.

    Files that stop a training are findings here; what was left unused, or chosen between, is noted.

    Raises ``InputError`` where there is no folder, or no picture in it, or no such base.
    """
    dataset, unusable = read_set(config)
    bad = tuple((dataset.name(file), reason) for file, reason in unusable)
    return check(survey(dataset, config, overflow_of(config.model), bad)), dataset.notes


def read_set(config: Config) -> tuple[Dataset, list[tuple[Path, str]]]:
    """The data set without the files that would stop a training, and these with the reasons. Raises as ``lint_folder``."""
    factor = find(config.model).pixel_factor
    unusable: list[tuple[Path, str]] = []
    for _ in range(ROUNDS):
        try:
            skip = frozenset(file for file, _ in unusable)
            return hold_out(scan(config.data, factor, skip=skip), config.validation, config.data, factor), unusable
        except UnusableFiles as error:
            unusable += error.files
            rest = error
    raise rest


def survey(dataset: Dataset, config: Config, overflow: Callable[[str], str], unusable: Sequence[tuple[str, str]] = ()) -> View:
    """The view of a data set. Regularisation pictures are not judged: they show what the base does, good or bad."""
    return View(
        pictures=_pictures(dataset, [item for item in dataset.items if not item.regularization]),
        held_out=_pictures(dataset, dataset.held_out),
        resolution=max((config.data.resolution, *config.data.resolutions)),
        bucket_step=config.data.bucket_step,
        batch_size=config.train.batch_size,
        overflow=overflow,
        strangers=tuple(dataset.name(file) for file in _strangers(dataset)),
        unusable=tuple(unusable),
    )


def _pictures(dataset: Dataset, items: Sequence[Item]) -> tuple[Picture, ...]:
    with ThreadPoolExecutor(THREADS) as pool:
        return tuple(pool.map(lambda item: _picture(dataset, item), items))


def _picture(dataset: Dataset, item: Item) -> Picture:
    source = dataset.sources[item.source]
    bucket = max(item.buckets, key=lambda size: size[0] * size[1])
    bare = item.plain if {NO_TRIGGER, EMPTY} & item.remarks else item.captions
    return Picture(
        name=dataset.name(item.path),
        path=item.path,
        size=item.size,
        bucket=bucket,
        sha256=item.sha256,
        remarks=item.remarks,
        captions=bare,
        source=item.caption_source,
        measures=measure(images.decode(item.path, dataset.background).pixels, bucket),
        trigger=source.trigger,
        repeats=source.settings.repeats,
    )


def _strangers(dataset: Dataset) -> Iterator[Path]:
    """Files beside the pictures that are no pictures, masks or captions of any."""
    known = {file for item in dataset.items for file in (item.path, item.caption_file, item.mask)}
    for folder in sorted({item.path.parent for item in dataset.items}):
        yield from (file for file in sorted(folder.iterdir()) if file.is_file() and file not in known)
