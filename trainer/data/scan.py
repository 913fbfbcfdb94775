"""From folders to a data set: every file is looked at, decoded and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.config import DataConfig
from trainer.data import buckets, images, notes
from trainer.data.buckets import Size
from trainer.data.caption_files import read_all
from trainer.data.captions import Caption, caption
from trainer.data.folder import Folder, read_folders
from trainer.data.items import Dataset, Item
from trainer.data.looks import Known, Look, Wanted, Watch, look_at_all
from trainer.data.problems import count, listing
from trainer.data.sources import Source, namer, sources_of
from trainer.errors import InputError

Unusables = list[tuple[Path, str]]
"""Files that cannot be used, and why."""


class UnusableFiles(InputError):
    """Some files cannot be used: ``files`` pairs each with the reason."""

    def __init__(self, what: str, fix: str, files: Unusables) -> None:
        super().__init__(what, fix)
        self.files = files


def scan(
    config: DataConfig,
    factor: int = 8,
    watch: Watch = Watch(),  # noqa: B008  # frozen
    sources: Sequence[Source] | None = None,
    skip: frozenset[Path] = frozenset(),
    known: Known | None = None,
) -> Dataset:
    """Read, decode and check every picture and caption of ``config.images`` or ``config.sources``, or of other ``sources``.

    ``factor`` is the VAE's reduction, which must divide ``config.bucket_step``. Files in ``skip`` are taken as absent; those that
    are ``known`` from an earlier start are not decoded again, and it learns the others. Raises ``InputError`` for a folder that
    cannot be used, ``UnusableFiles`` for pictures and captions, ``StoppedError`` when ``watch.should_stop()``.
    """
    background = images.colour(config.background)
    for side in {config.resolution, *config.resolutions}:
        buckets.check(side, config.bucket_step, factor)
    folders = [folder.without(skip) for folder in read_folders(sources_of(config) if sources is None else sources)]
    sources = [folder.source for folder in folders]
    name = namer(sources)
    unusable = [pair for folder in folders for pair in folder.unusable]
    looks = look_at_all(list(_wanted(folders)), background, unusable, watch, known or Known())
    texts = [text for folder in folders for text in _captions(folder, unusable)]
    if unusable:
        raise _broken(sources, unusable, name)
    sides = [side for side in config.resolutions if side != config.resolution]
    homes = [index for index, folder in enumerate(folders) for _ in folder.pictures]
    items = [
        _item(look, text, bucket, (home, sources[home]))
        for look, text, bucket, home in zip(looks, texts, _buckets(looks, config, name), homes, strict=True)
    ]
    items = [replace(item, more_buckets=_others(item, sides, config)) for item in items]
    _check_masks(items, sources)
    noted = [
        *(note for folder in folders for note in folder.notes),
        *notes.folder_notes(items, sources),
        *notes.caption_notes(items, texts, sources, name),
        *notes.picture_notes(items, [look.remarks for look in looks], config.background, name),
        *notes.mask_notes(items, sources, name),
        *notes.size_notes(items, config, name),
    ]
    return Dataset(tuple(items), tuple(sources), background, tuple(noted), sizes=1 + len(sides))


def _wanted(folders: Sequence[Folder]) -> Iterator[Wanted]:
    """Every picture that is an ordinary file, with the place of its mask."""
    for folder in folders:
        by_alpha = folder.source.settings.mask == "alpha"
        yield from (Wanted(file, file if by_alpha else folder.masks.get(file)) for file in folder.pictures if file.is_file())


def _captions(folder: Folder, unusable: Unusables) -> list[Caption]:
    """One caption a picture; files that hold none are added to ``unusable``, others noted."""
    found = read_all(folder.pictures, folder.others)
    unusable += found.unusable
    folder.notes.extend(found.notes)
    return [caption(picture, found.written[picture], folder.source) for picture in folder.pictures]


def _item(look: Look, text: Caption, bucket: Size, home: tuple[int, Source]) -> Item:
    index, source = home
    return Item(
        path=look.path,
        captions=text.texts,
        plain=text.plain,
        caption_source=text.kind,
        caption_file=text.file,
        width=look.size[0],
        height=look.size[1],
        sha256=look.sha256,
        bucket=bucket,
        source=index,
        mask=look.mask,
        mask_sha256=look.mask_sha256,
        regularization=source.regularization,
        loss_weight=source.loss_weight,
        remarks=look.remarks | text.remarks,
    )


def _others(item: Item, sides: Sequence[int], config: DataConfig) -> tuple[Size, ...]:
    return buckets.choose_others(item.size, item.bucket, sides, config.bucket_step, config.upscale)


def _broken(sources: Sequence[Source], unusable: Unusables, name: notes.Name) -> InputError:
    lines = sorted({f"{name(file)}: {reason}" for file, reason in unusable})
    where = sources[0].path if len(sources) == 1 else count(len(sources), "folder")
    fix = "repair these files or take them out of the folder; nothing was trained"
    return UnusableFiles(f"{count(len(lines), 'file')} in {where} cannot be used:\n{listing(lines)}", fix, unusable)


def _check_masks(items: Sequence[Item], sources: Sequence[Source]) -> None:
    """Raise ``InputError`` where masks are asked for and none is there."""
    for index, source in enumerate(sources):
        if source.settings.mask != "none" and not any(item.mask for item in items if item.source == index):
            ways = {
                "alpha": ("no picture is transparent", "set data.mask = none, or save the pictures with their alpha channel"),
                "files": (
                    "there is no mask file",
                    "put fox.mask.png beside fox.png, or fox.png into masks/, or set data.mask = none",
                ),
            }
            what, fix = ways[source.settings.mask]
            raise InputError(f"data.mask = {source.settings.mask!r}, but {what} in {source.path}", fix)


def _buckets(looks: Sequence[Look], config: DataConfig, name: notes.Name) -> list[Size]:
    """The bucket of each picture. Raises ``InputError`` naming all that are too small."""
    chosen: list[Size] = []
    small: Unusables = []
    for look in looks:
        try:
            chosen.append(buckets.choose(look.size, config.resolution, config.bucket_step, config.upscale))
        except ValueError as error:
            small.append((look.path, str(error)))
    if small:
        lines = [f"{name(file)}: {reason}" for file, reason in small]
        raise UnusableFiles(
            f"{count(len(small), 'picture')} smaller than data.bucket_step = {config.bucket_step}:\n{listing(lines)}",
            "take larger pictures, take these out, lower data.bucket_step, or set data.upscale = true to enlarge them",
            small,
        )
    return chosen
