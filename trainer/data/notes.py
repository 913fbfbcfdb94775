"""What a user should know of the pictures and captions that were read: one sentence for each thing that was noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from trainer.config import DataConfig
from trainer.data import buckets, captions, images, looks
from trainer.data.captions import Caption
from trainer.data.items import Item
from trainer.data.problems import count, some
from trainer.data.sources import Source, labels

Name = Callable[[Path], str]
Key = TypeVar("Key", bound=Hashable)

CROP_SAID = 0.75
"""A crop that keeps less than this share of a picture is mentioned."""
LINES = {"join": "which are joined", "first": "of which the first is used", "random": "one of which is drawn each time"}
"""What is done to captions of several lines, by ``data.caption_lines``."""


def folder_notes(items: Sequence[Item], sources: Sequence[Source]) -> Iterator[str]:
    """How much of an epoch each folder is, where there are several."""
    if len(sources) > 1:
        pictures = Counter(item.source for item in items)
        parts = []
        for index, (label, source) in enumerate(zip(labels(sources), sources, strict=True)):
            kind = ", regularization" if source.regularization else ""
            parts.append(f"{label} ({count(pictures[index], 'picture')} x {source.settings.repeats}{kind})")
        yield f"{len(sources)} folders: {some(parts, 20)}"


def caption_notes(items: Sequence[Item], texts: Sequence[Caption], sources: Sequence[Source], name: Name) -> Iterator[str]:
    """Where captions came from and what was done to them."""

    def with_remark(remark: str) -> list[Item]:
        return [item for item, text in zip(items, texts, strict=True) if remark in text.remarks]

    for kind, what in ((captions.FILE_NAME, "file names"), (captions.FOLDER_NAME, "the folder's name")):
        if named := [item for item in items if item.caption_source == kind]:
            yield f"{count(len(named), 'caption')} from {what}, such as {name(named[0].path)} -> {named[0].caption!r}"
    for trigger, lacking in _grouped(with_remark(captions.NO_TRIGGER), lambda item: sources[item.source].trigger):
        verb, them = ("lacks", "it") if len(lacking) == 1 else ("lack", "them")
        yield f"{count(len(lacking), 'caption')} {verb} the trigger {trigger!r}: it is put before {them}"
    for trigger, empty in _grouped(with_remark(captions.EMPTY), lambda item: sources[item.source].trigger):
        rest = f"only the trigger {trigger!r} is used" if trigger.strip() else "trained without words"
        yield f"{count(len(empty), 'caption')} empty ({rest}): {_names(empty, name)}"
    for way, several in _grouped(with_remark(captions.SEVERAL_LINES), lambda item: sources[item.source].settings.caption_lines):
        yield f"{count(len(several), 'caption')} with several lines, {LINES[way]}: {_names(several, name)}"
    if choices := with_remark(captions.CHOICES):
        yield f"{count(len(choices), 'caption')} with choices {{a|b}}, drawn each time: {_names(choices, name)}"
    rivals = {item.path: text.rivals for item, text in zip(items, texts, strict=True)}
    unused = [item for item in items if rivals[item.path]]
    for (used, other), both in _grouped(unused, lambda item: (item.caption_source, " and ".join(rivals[item.path]))):
        yield f"{count(len(both), 'picture')} with captions in both {used} and {other}: {used} is used: {_names(both, name)}"


def picture_notes(items: Sequence[Item], remarks: Sequence[frozenset[str]], background: str, name: Name) -> Iterator[str]:
    """What decoding noticed, and pictures that are there twice."""
    sentences = {
        images.ANIMATED: "animated or of several pages: the first frame is used",
        images.TRANSPARENT: f"transparent: data.background = {background} is put under",
        images.CMYK: "in CMYK without a colour profile: colours are approximate",
        images.PROFILE: "with a colour profile that does not fit: taken as sRGB",
        images.EXIF: "with damaged EXIF data: perhaps not upright",
        looks.BLACK_MASK: "with a mask that is black all over: nothing is learned from it",
    }
    for remark, sentence in sentences.items():
        if found := [item for item, of_item in zip(items, remarks, strict=True) if remark in of_item]:
            yield f"{count(len(found), 'picture')} {sentence}: {_names(found, name)}"
    first: dict[str, Path] = {}
    for item in items:
        if (other := first.setdefault(item.sha256, item.path)) is not item.path:
            yield f"{name(item.path)} is the same picture as {name(other)}"


def mask_notes(items: Sequence[Item], sources: Sequence[Source], name: Name) -> Iterator[str]:
    """How many pictures have a mask, and those of masked folders that have none."""
    masked = [item for item in items if sources[item.source].settings.mask != "none"]
    if masked:
        yield f"{sum(item.mask is not None for item in masked)} of {count(len(masked), 'picture')} with a mask"
    if whole := [item for item in masked if item.mask is None]:
        yield f"{count(len(whole), 'picture')} without a mask, taken as a whole: {_names(whole, name)}"


def size_notes(items: Sequence[Item], config: DataConfig, name: Name) -> Iterator[str]:
    """Pictures that are trained smaller, larger or narrower than they are."""
    usual = buckets.regular(config.resolution, config.bucket_step)
    if small := [item for item in items if item.bucket not in usual]:
        yield f"{count(len(small), 'picture')} too small for data.resolution, trained at less: {_names(small, name)}"
    if enlarged := [item for item in items if not buckets.fits(item.bucket, item.size)]:
        yield f"{count(len(enlarged), 'picture')} enlarged to the bucket: {_names(enlarged, name)}"
    if cropped := [item for item in items if buckets.kept(item.size, item.bucket) < CROP_SAID]:
        yield f"{count(len(cropped), 'picture')} cropped by more than a quarter: {_names(cropped, name)}"


def _grouped(items: Sequence[Item], key: Callable[[Item], Key]) -> list[tuple[Key, list[Item]]]:
    """The items by key, in the order in which keys are met."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def _names(items: Sequence[Item], name: Name) -> str:
    return some([name(item.path) for item in items])
