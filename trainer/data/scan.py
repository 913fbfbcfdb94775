"""From a folder to a data set: every file is looked at, decoded and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainer.config import DataConfig
from trainer.data import buckets, captions, images
from trainer.data.buckets import Size
from trainer.data.captions import Caption
from trainer.data.folder import Folder, read_folder
from trainer.data.items import Dataset, Item
from trainer.data.problems import Unusable, count, listing, shown, some
from trainer.errors import ExitCode, InputError, StoppedError

THREADS = 4
"""Decoding leaves Python's lock; few, because each may hold a picture of ``images.MAX_PIXELS``."""
CROP_SAID = 0.75
"""A crop that keeps less than this share of a picture is mentioned."""


@dataclass(frozen=True)
class _Look:
    """What decoding one picture told; its pixels are let go."""

    path: Path
    size: Size
    sha256: str
    remarks: frozenset[str]


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
    background = images.colour(config.background)
    buckets.check(config.resolution, config.bucket_step, factor)
    folder = read_folder(config.images)
    unusable = list(folder.unusable)
    looks = _look_at_all(folder, background, unusable, (should_stop, progress))
    texts = _captions(folder, config.trigger, unusable)
    if unusable:
        raise _broken(folder.path, unusable)
    sizes = _buckets(looks, config)
    items = tuple(
        Item(look.path, text.text, text.source, *look.size, look.sha256, bucket)
        for look, text, bucket in zip(looks, texts, sizes, strict=True)
    )
    notes = [*folder.notes, *_caption_notes(items, texts, config.trigger), *_picture_notes(looks, config)]
    return Dataset(items, background, (*notes, *_size_notes(items, config)))


def _look_at_all(
    folder: Folder,
    background: tuple[int, int, int],
    unusable: list[tuple[str, str]],
    watch: tuple[Callable[[], bool], Callable[[int, int], None]],
) -> list[_Look]:
    """Decode every picture; those that cannot be are added to ``unusable``."""
    should_stop, progress = watch
    looks = []
    files = [file for file in folder.pictures if file.is_file()]
    with ThreadPoolExecutor(THREADS) as pool:
        for done, result in enumerate(pool.map(lambda file: _look(file, background), files)):
            if should_stop():
                pool.shutdown(cancel_futures=True)
                raise StoppedError("stopped while the pictures were read", "start the run again", ExitCode.INTERRUPTED)
            if isinstance(result, _Look):
                looks.append(result)
            else:
                unusable.append((shown(files[done].name), result))
            progress(done + 1, len(files))
    return looks


def _look(file: Path, background: tuple[int, int, int]) -> _Look | str:
    """What the picture is, or why it cannot be used."""
    try:
        decoded = images.decode(file, background)
    except Unusable as error:
        return str(error)
    return _Look(file, decoded.size, decoded.sha256, decoded.remarks)


def _captions(folder: Folder, trigger: str, unusable: list[tuple[str, str]]) -> list[Caption]:
    """One caption a picture; files that are no text are added to ``unusable``."""
    found = []
    for picture in folder.pictures:
        located = captions.locate(picture, folder.captions)
        try:
            found.append(captions.caption(picture, located, trigger))
        except Unusable as error:
            unusable.append((shown(located[0].name), str(error)))
    return found


def _broken(path: Path, unusable: list[tuple[str, str]]) -> InputError:
    lines = list(dict.fromkeys(f"{name}: {reason}" for name, reason in sorted(unusable)))
    fix = "repair these files or take them out of the folder; nothing was trained"
    return InputError(f"{count(len(lines), 'file')} in {path} cannot be used:\n{listing(lines)}", fix)


def _buckets(looks: Sequence[_Look], config: DataConfig) -> list[Size]:
    """The bucket of each picture. Raises ``InputError`` naming all that are too small."""
    chosen, small = [], []
    for look in looks:
        try:
            chosen.append(buckets.choose(look.size, config.resolution, config.bucket_step, config.upscale))
        except ValueError as error:
            small.append(f"{shown(look.path.name)}: {error}")
    if small:
        raise InputError(
            f"{count(len(small), 'picture')} smaller than data.bucket_step = {config.bucket_step}:\n{listing(small)}",
            "take larger pictures, take these out, lower data.bucket_step, or set data.upscale = true to enlarge them",
        )
    return chosen


def _caption_notes(items: Sequence[Item], texts: Sequence[Caption], trigger: str) -> Iterable[str]:
    def with_remark(remark: str) -> list[Item]:
        return [item for item, text in zip(items, texts, strict=True) if remark in text.remarks]

    if named := [item for item in items if item.caption_source == captions.FILE_NAME]:
        example = f"{shown(named[0].path.name)} -> {named[0].caption!r}"
        yield f"{count(len(named), 'caption')} from file names, such as {example}"
    if lacking := with_remark(captions.NO_TRIGGER):
        verb, them = ("lacks", "it") if len(lacking) == 1 else ("lack", "them")
        yield f"{count(len(lacking), 'caption')} {verb} the trigger {trigger!r}: it is put before {them}"
    if empty := with_remark(captions.EMPTY):
        rest = f"only the trigger {trigger!r} is used" if trigger.strip() else "trained without words"
        yield f"{count(len(empty), 'caption')} empty ({rest}): {_names(empty)}"
    if several := with_remark(captions.SEVERAL_LINES):
        yield f"{count(len(several), 'caption')} with several lines, which are joined: {_names(several)}"
    if both := with_remark(captions.BOTH_FILES):
        yield f"{count(len(both), 'picture')} with both .txt and .caption: .txt is used: {_names(both)}"


def _picture_notes(looks: Sequence[_Look], config: DataConfig) -> Iterable[str]:
    sentences = {
        images.ANIMATED: "animated or of several pages: the first frame is used",
        images.TRANSPARENT: f"transparent: data.background = {config.background} is put under",
        images.CMYK: "in CMYK without a colour profile: colours are approximate",
        images.PROFILE: "with a colour profile that does not fit: taken as sRGB",
        images.EXIF: "with damaged EXIF data: perhaps not upright",
    }
    for remark, sentence in sentences.items():
        if found := [shown(look.path.name) for look in looks if remark in look.remarks]:
            yield f"{count(len(found), 'picture')} {sentence}: {some(found)}"
    first: dict[str, Path] = {}
    for look in looks:
        if (other := first.setdefault(look.sha256, look.path)) is not look.path:
            yield f"{shown(look.path.name)} is the same picture as {shown(other.name)}"


def _size_notes(items: Sequence[Item], config: DataConfig) -> Iterable[str]:
    usual = buckets.regular(config.resolution, config.bucket_step)
    if small := [item for item in items if item.bucket not in usual]:
        yield f"{count(len(small), 'picture')} too small for data.resolution, trained at less: {_names(small)}"
    if enlarged := [item for item in items if not buckets.fits(item.bucket, item.size)]:
        yield f"{count(len(enlarged), 'picture')} enlarged to the bucket: {_names(enlarged)}"
    if cropped := [item for item in items if buckets.kept(item.size, item.bucket) < CROP_SAID]:
        yield f"{count(len(cropped), 'picture')} cropped by more than a quarter: {_names(cropped)}"


def _names(items: Sequence[Item]) -> str:
    return some([shown(item.path.name) for item in items])
