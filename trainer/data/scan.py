"""From folders to a data set: every file is looked at, decoded and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainer.config import DataConfig
from trainer.data import buckets, captions, images, notes
from trainer.data.buckets import Size
from trainer.data.captions import Caption
from trainer.data.folder import Folder, read_folder
from trainer.data.items import Dataset, Item
from trainer.data.problems import Unusable, count, listing
from trainer.data.sources import Source, namer, sources_of
from trainer.errors import ExitCode, InputError, StoppedError

THREADS = 4
"""Decoding leaves Python's lock; few, because each may hold a picture of ``images.MAX_PIXELS``."""

Unusables = list[tuple[Path, str]]
"""Files that cannot be used, and why."""


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
    sources: Sequence[Source] | None = None,
) -> Dataset:
    """Read, decode and check every picture and caption of ``config.images`` or ``config.sources``, or of other ``sources``.

    ``factor`` is the VAE's reduction, which must divide ``config.bucket_step``; ``progress`` counts pictures.
    Raises ``InputError`` for a folder, picture or caption that cannot be used, ``StoppedError`` when ``should_stop()``.
    """
    background = images.colour(config.background)
    buckets.check(config.resolution, config.bucket_step, factor)
    sources = sources_of(config) if sources is None else sources
    folders = [read_folder(source) for source in sources]
    name = namer(sources)
    unusable = [pair for folder in folders for pair in folder.unusable]
    looks = _look_at_all([file for folder in folders for file in folder.pictures], background, unusable, (should_stop, progress))
    texts = [text for source, folder in zip(sources, folders, strict=True) for text in _captions(folder, source, unusable)]
    if unusable:
        raise _broken(sources, unusable, name)
    sizes = _buckets(looks, config, name)
    homes = [index for index, folder in enumerate(folders) for _ in folder.pictures]
    items = [
        _item(look, text, bucket, (home, sources[home]))
        for look, text, bucket, home in zip(looks, texts, sizes, homes, strict=True)
    ]
    noted = [
        *(note for folder in folders for note in folder.notes),
        *notes.caption_notes(items, texts, sources, name),
        *notes.picture_notes(items, [look.remarks for look in looks], config.background, name),
        *notes.size_notes(items, config, name),
    ]
    return Dataset(tuple(items), tuple(sources), background, tuple(noted))


def _item(look: _Look, text: Caption, bucket: Size, home: tuple[int, Source]) -> Item:
    index, source = home
    return Item(
        path=look.path,
        captions=(text.text,),
        plain=(captions.without_trigger(text.text, source.trigger),),
        caption_source=text.source,
        width=look.size[0],
        height=look.size[1],
        sha256=look.sha256,
        bucket=bucket,
        source=index,
        regularization=source.regularization,
        loss_weight=source.loss_weight,
    )


def _look_at_all(
    pictures: Sequence[Path],
    background: tuple[int, int, int],
    unusable: Unusables,
    watch: tuple[Callable[[], bool], Callable[[int, int], None]],
) -> list[_Look]:
    """Decode every picture; those that cannot be are added to ``unusable``."""
    should_stop, progress = watch
    looks = []
    files = [file for file in pictures if file.is_file()]
    with ThreadPoolExecutor(THREADS) as pool:
        for done, result in enumerate(pool.map(lambda file: _look(file, background), files)):
            if should_stop():
                pool.shutdown(cancel_futures=True)
                raise StoppedError("stopped while the pictures were read", "start the run again", ExitCode.INTERRUPTED)
            if isinstance(result, _Look):
                looks.append(result)
            else:
                unusable.append((files[done], result))
            progress(done + 1, len(files))
    return looks


def _look(file: Path, background: tuple[int, int, int]) -> _Look | str:
    """What the picture is, or why it cannot be used."""
    try:
        decoded = images.decode(file, background)
    except Unusable as error:
        return str(error)
    return _Look(file, decoded.size, decoded.sha256, decoded.remarks)


def _captions(folder: Folder, source: Source, unusable: Unusables) -> list[Caption]:
    """One caption a picture; files that are no text are added to ``unusable``."""
    found = []
    for picture in folder.pictures:
        located = captions.locate(picture, folder.captions)
        try:
            found.append(captions.caption(picture, located, source.trigger))
        except Unusable as error:
            unusable.append((located[0], str(error)))
    return found


def _broken(sources: Sequence[Source], unusable: Unusables, name: notes.Name) -> InputError:
    lines = sorted({f"{name(file)}: {reason}" for file, reason in unusable})
    where = sources[0].path if len(sources) == 1 else f"{len(sources)} folders"
    fix = "repair these files or take them out of the folder; nothing was trained"
    return InputError(f"{count(len(lines), 'file')} in {where} cannot be used:\n{listing(lines)}", fix)


def _buckets(looks: Sequence[_Look], config: DataConfig, name: notes.Name) -> list[Size]:
    """The bucket of each picture. Raises ``InputError`` naming all that are too small."""
    chosen, small = [], []
    for look in looks:
        try:
            chosen.append(buckets.choose(look.size, config.resolution, config.bucket_step, config.upscale))
        except ValueError as error:
            small.append(f"{name(look.path)}: {error}")
    if small:
        raise InputError(
            f"{count(len(small), 'picture')} smaller than data.bucket_step = {config.bucket_step}:\n{listing(small)}",
            "take larger pictures, take these out, lower data.bucket_step, or set data.upscale = true to enlarge them",
        )
    return chosen
