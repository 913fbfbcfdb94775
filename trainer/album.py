"""The pictures and captions of a recipe as a browser shows and edits them. Every edit returns what undoes it."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from morelora import atomic
from trainer import settings
from trainer.config import Config
from trainer.data import Dataset, Item, images
from trainer.data.caption_files import BESIDE, MAX_TEXT, stem_key
from trainer.data.folder import read_folders
from trainer.data.sources import sources_of
from trainer.errors import DiskError, InputError
from trainer.lint.report import plain
from trainer.lint.survey import check, read_set, survey
from trainer.models import overflow_of, tokens_of
from trainer.presets import SHIPPED
from trainer.run import free

LEFT_OUT = ".left-out"
"""Folder beside the pictures for those that are left out: hidden, so that no training reads it."""
SECTIONS = ("model", "data", "validation")
THUMB = 256
TOKENS = 75
"""Tokens of a chunk without its two marks."""

Values = dict[str, Any]
Moves = list[tuple[str, str]]


def album(values: Mapping[str, Any], thumbs: str) -> Values:
    """``pictures`` (file, name, caption, source, tokens, cut, size, thumb), ``findings``, ``tags``; thumbnails in ``thumbs``.

    Raises ``InputError`` where there is no folder or no picture in it.
    """
    config = _config(values)
    dataset, unusable = read_set(config)
    overflow, tokens = overflow_of(config.model), tokens_of(config.model)
    names = [(dataset.name(file), reason) for file, reason in unusable]
    pictures = [_picture(dataset, item, Path(thumbs)) for item in (*dataset.items, *dataset.held_out)]
    for picture in pictures:
        picture |= {"tokens": tokens(picture["read"]), "cut": overflow(picture["read"])}
    return {
        "pictures": pictures,
        "unusable": [[str(file), dataset.name(file)] for file, _ in unusable],
        "findings": plain(check(survey(dataset, config, overflow, names))),
        "tags": _tags(pictures),
        "most_tokens": TOKENS * config.model.caption_chunks,
        "trigger": config.data.trigger,
    }


def write_captions(values: Mapping[str, Any], captions: Mapping[str, str | None]) -> dict[str, str | None]:
    """Write ``NAME.txt`` beside pictures of the recipe's folders, None takes it away; returns what was there.

    Raises ``InputError`` for a file that is no picture of them, ``DiskError`` where one cannot be written.
    """
    known = _files(values)
    before: dict[str, str | None] = {}
    for name, text in captions.items():
        file = _known(name, known).with_suffix(".txt")
        before[name] = file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else None
        try:
            if text is None:
                file.unlink(missing_ok=True)
            elif len(text.encode()) > MAX_TEXT:
                raise InputError(f"the caption of {Path(name).name} is too long", f"write at most {MAX_TEXT} bytes")
            else:
                atomic.write_text(file, text)
        except OSError as error:
            raise DiskError.of(error, file) from error
    return before


def leave_out(values: Mapping[str, Any], names: Sequence[str]) -> Moves:
    """Move pictures and the files beside them into ``.left-out``; returns the moves back. Raises as ``write_captions``."""
    known = _files(values)
    files = [_known(name, known) for name in names]
    keys = {stem_key(file) for file in files}
    beside = {file.parent: [other for other in file.parent.iterdir() if other.is_file()] for file in files}
    wanted = [other for others in beside.values() for other in others if _belongs(other, files, keys)]
    return move([(str(file), str(free(file.parent / LEFT_OUT / file.name))) for file in wanted])


def move(moves: Moves) -> Moves:
    """Move files; nothing is overwritten. Returns the moves that undo it."""
    done: Moves = []
    for source, target in moves:
        try:
            Path(target).parent.mkdir(exist_ok=True)
            if Path(target).exists():
                raise FileExistsError(errno.EEXIST, "there is a file of that name")
            Path(source).rename(target)
        except OSError as error:
            raise DiskError.of(error, target) from error
        done.append((target, source))
    return done[::-1]


def _config(values: Mapping[str, Any]) -> Config:
    """What of the recipe is about pictures, whatever else may be wrong in it.

    Where the base is still to be chosen, captions are counted with the vocabulary that all families share.
    """
    kept = {name: values[name] for name in SECTIONS if name in values}
    batch = values.get("train", {}).get("batch_size")
    config = settings.parse(kept | ({"train": {"batch_size": batch}} if batch else {}), "the recipe")
    if config.model.base.strip():
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"base": "pocket", "family": "auto"})})


def _picture(dataset: Dataset, item: Item, thumbs: Path) -> Values:
    file = item.caption_file
    is_own = file is not None and file.suffix.lower() == ".txt"
    written = file.read_text(encoding="utf-8-sig", errors="replace").strip() if file and is_own else item.plain[0]
    return {
        "file": str(item.path),
        "name": dataset.name(item.path),
        "caption": written,
        "read": max(item.captions, key=len),
        "source": item.caption_source,
        "size": list(item.size),
        "thumb": str(_thumb(item, thumbs, dataset.background)),
    }


def _thumb(item: Item, thumbs: Path, background: tuple[int, int, int]) -> Path:
    file = thumbs / f"{item.sha256[:32]}.webp"
    if not file.is_file():
        image = Image.fromarray(images.decode(item.path, background).pixels)
        image.thumbnail((THUMB, THUMB))
        thumbs.mkdir(parents=True, exist_ok=True)
        atomic.write_file(file, lambda path: image.save(path, "WEBP", quality=85))
    return file


def _tags(pictures: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Parts of captions between commas, and in how many captions each stands; the most frequent first."""
    counts = Counter(tag for picture in pictures for tag in {part.strip() for part in picture["caption"].split(",")} if tag)
    return counts.most_common()


def _files(values: Mapping[str, Any]) -> set[Path]:
    config = _config(values)
    return {
        file
        for folder in read_folders(sources_of(config.data))
        for file in (*folder.pictures, *(path for path, _ in folder.unusable))
    }


def _known(name: str, known: set[Path]) -> Path:
    if Path(name) not in known:
        raise InputError(f"{name} is no picture of this recipe's folders", "open the folder again")
    if Path(name).resolve().is_relative_to(SHIPPED):
        raise InputError(f"{Path(name).name} ships with the program and stays as it is", "copy the folder and open the copy")
    return Path(name)


def _belongs(other: Path, files: Sequence[Path], keys: set[tuple[Path, str]]) -> bool:
    return other in files or (other.suffix.lower() in BESIDE and stem_key(other) in keys)
