"""What a user should know of the pictures and captions that were read: one sentence for each thing that was noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trainer.config import DataConfig
from trainer.data import buckets, captions, images
from trainer.data.captions import Caption
from trainer.data.items import Item
from trainer.data.problems import count, some
from trainer.data.sources import Source

Name = Callable[[Path], str]


def caption_notes(items: Sequence[Item], texts: Sequence[Caption], sources: Sequence[Source], name: Name) -> Iterator[str]:
    """Where captions came from and what was done to them."""

    def with_remark(remark: str) -> list[Item]:
        return [item for item, text in zip(items, texts, strict=True) if remark in text.remarks]

    if named := [item for item in items if item.caption_source == captions.FILE_NAME]:
        example = f"{name(named[0].path)} -> {named[0].caption!r}"
        yield f"{count(len(named), 'caption')} from file names, such as {example}"
    for trigger, lacking in _by_trigger(with_remark(captions.NO_TRIGGER), sources):
        verb, them = ("lacks", "it") if len(lacking) == 1 else ("lack", "them")
        yield f"{count(len(lacking), 'caption')} {verb} the trigger {trigger!r}: it is put before {them}"
    for trigger, empty in _by_trigger(with_remark(captions.EMPTY), sources):
        rest = f"only the trigger {trigger!r} is used" if trigger.strip() else "trained without words"
        yield f"{count(len(empty), 'caption')} empty ({rest}): {_names(empty, name)}"
    if several := with_remark(captions.SEVERAL_LINES):
        yield f"{count(len(several), 'caption')} with several lines, which are joined: {_names(several, name)}"
    if both := with_remark(captions.BOTH_FILES):
        yield f"{count(len(both), 'picture')} with both .txt and .caption: .txt is used: {_names(both, name)}"


def picture_notes(items: Sequence[Item], remarks: Sequence[frozenset[str]], background: str, name: Name) -> Iterator[str]:
    """What decoding noticed, and pictures that are there twice."""
    sentences = {
        images.ANIMATED: "animated or of several pages: the first frame is used",
        images.TRANSPARENT: f"transparent: data.background = {background} is put under",
        images.CMYK: "in CMYK without a colour profile: colours are approximate",
        images.PROFILE: "with a colour profile that does not fit: taken as sRGB",
        images.EXIF: "with damaged EXIF data: perhaps not upright",
    }
    for remark, sentence in sentences.items():
        if found := [item for item, of_item in zip(items, remarks, strict=True) if remark in of_item]:
            yield f"{count(len(found), 'picture')} {sentence}: {_names(found, name)}"
    first: dict[str, Path] = {}
    for item in items:
        if (other := first.setdefault(item.sha256, item.path)) is not item.path:
            yield f"{name(item.path)} is the same picture as {name(other)}"


def size_notes(items: Sequence[Item], config: DataConfig, name: Name) -> Iterator[str]:
    """Pictures that are trained smaller, larger or narrower than they are."""
    usual = buckets.regular(config.resolution, config.bucket_step)
    if small := [item for item in items if item.bucket not in usual]:
        yield f"{count(len(small), 'picture')} too small for data.resolution, trained at less: {_names(small, name)}"
    if enlarged := [item for item in items if not buckets.fits(item.bucket, item.size)]:
        yield f"{count(len(enlarged), 'picture')} enlarged to the bucket: {_names(enlarged, name)}"
    if cropped := [item for item in items if buckets.kept(item.size, item.bucket) < CROP_SAID]:
        yield f"{count(len(cropped), 'picture')} cropped by more than a quarter: {_names(cropped, name)}"


CROP_SAID = 0.75
"""A crop that keeps less than this share of a picture is mentioned."""


def _by_trigger(items: Sequence[Item], sources: Sequence[Source]) -> list[tuple[str, list[Item]]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(sources[item.source].trigger, []).append(item)
    return list(groups.items())


def _names(items: Sequence[Item], name: Name) -> str:
    return some([name(item.path) for item in items])
