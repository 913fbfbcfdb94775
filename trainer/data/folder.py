"""What lies in the training folder: pictures, caption files, other files, and pictures where nobody looks."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainer.data.captions import SUFFIXES, stem_key
from trainer.data.images import is_picture
from trainer.data.problems import count, shown, some
from trainer.data.sources import Source
from trainer.errors import InputError

# fmt: off
PICTURES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
    ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm",
))
OTHER_PICTURES = frozenset((
    ".heic", ".heif", ".jxl", ".tga", ".psd", ".svg", ".eps", ".ai", ".pdf", ".exr", ".hdr", ".dng", ".raw",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".ico", ".xcf", ".kra",
))
"""Pictures to a person, but not read here: leaving them out in silence would be wrong."""
SIDE_FILES = frozenset((
    *SUFFIXES, ".json", ".jsonl", ".toml", ".yaml", ".yml", ".csv", ".md", ".html", ".ini", ".db", ".npz",
))
# fmt: on


@dataclass(frozen=True)
class Folder:
    """``captions`` by (stem key, suffix); ``unusable`` as (file, reason)."""

    path: Path
    pictures: list[Path]
    captions: dict[tuple[str, str], Path]
    unusable: list[tuple[Path, str]]
    notes: list[str]


def read_folder(source: Source) -> Folder:
    """Sort the files of a folder by what they are. Raises ``InputError`` where there is no picture to train on."""
    path = source.path
    files, folders = _entries(path, source.setting)
    kinds = {file: _kind(file) for file in files}
    pictures = [file for file in files if kinds[file] == "picture"]
    unusable = [(file, reason) for file in files if (reason := _unusable(file, kinds[file]))]
    deeper = _deeper(folders)
    if not pictures and not unusable:
        raise _nothing(source, files, deeper)
    captions = {(stem_key(file), file.suffix.lower()): file for file in files if file.suffix.lower() in SUFFIXES}
    notes = [*_deeper_notes(path, deeper), *_left_out(files, kinds), *_orphans(captions, pictures)]
    return Folder(path, pictures, captions, unusable, notes)


def _entries(path: Path, setting: str) -> tuple[list[Path], list[Path]]:
    """Files and folders, sorted by name, without hidden ones. Raises ``InputError``."""
    what = f"{setting} = {str(path)!r}"
    fix = f"check the path; a relative one starts at {Path.cwd()}"
    try:
        found = sorted(path.iterdir(), key=lambda entry: (unicodedata.normalize("NFC", entry.name), entry.name))
    except NotADirectoryError as error:
        raise InputError(f"{what} is a file, not a folder", f"give the folder it lies in: {path.parent}") from error
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist", fix) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}", fix) from error
    found = [entry for entry in found if not entry.name.startswith(".")]
    return [entry for entry in found if not entry.is_dir()], [entry for entry in found if entry.is_dir()]


def _kind(file: Path) -> str:
    """``picture``, ``other picture``, ``side`` or ``unknown``. A file with an unknown ending is judged by its content."""
    suffix = file.suffix.lower()
    if suffix in SIDE_FILES:
        return "side"
    if suffix in OTHER_PICTURES:
        return "other picture"
    return "picture" if suffix in PICTURES or (file.is_file() and is_picture(file)) else "unknown"


def _unusable(file: Path, kind: str) -> str:
    """Why a file that is meant as a picture cannot be one, from its name and nature alone; empty where it can."""
    if kind == "other picture":
        return f"{file.suffix.lower()} files are not read here: save it as PNG or JPEG"
    if kind == "picture" and not file.is_file():
        return "is a link to nothing" if file.is_symlink() else "is not an ordinary file"
    return ""


def _deeper(folders: list[Path]) -> Counter[Path]:
    """Pictures one and two levels below the folder, by where they lie; a whole disk is not searched."""
    found: Counter[Path] = Counter()
    for folder in folders:
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")] if Path(place) == folder else []
            here = sum(Path(name).suffix.lower() in PICTURES and not name.startswith(".") for name in names)
            found.update({Path(place): here} if here else {})
    return found


def _nothing(source: Source, files: list[Path], deeper: Counter[Path]) -> InputError:
    path = source.path
    if deeper:
        best, number = deeper.most_common(1)[0]
        places = some([f"{amount} in {shown(place.relative_to(path))}" for place, amount in deeper.most_common()])
        return InputError(
            f"no picture in {path}: {deeper.total()} found in folders below it ({places})",
            f"set {source.setting} to one of them, such as {shown(best)} ({count(number, 'picture')})",
        )
    fix = "put pictures (PNG, JPEG, WebP ...) into it, or give another folder"
    if not files:
        return InputError(f"no picture in {path}: the folder is empty", fix)
    endings = Counter(file.suffix.lower() or "without an ending" for file in files)
    held = some([f"{number} {ending}" for ending, number in endings.most_common()], 5)
    return InputError(f"no picture in {path}: it holds only {held}", fix)


def _deeper_notes(path: Path, deeper: Counter[Path]) -> list[str]:
    if not deeper:
        return []
    places = some([f"{number} in {shown(place.relative_to(path))}" for place, number in deeper.most_common()])
    return [f"pictures in subfolders are not used: {places}"]


def _left_out(files: list[Path], kinds: dict[Path, str]) -> list[str]:
    unknown = [shown(file.name) for file in files if kinds[file] == "unknown"]
    return [f"left out, since not pictures: {some(unknown)}"] if unknown else []


def _orphans(captions: dict[tuple[str, str], Path], pictures: list[Path]) -> list[str]:
    stems = {stem_key(picture) for picture in pictures}
    alone = [shown(file.name) for (stem, _), file in captions.items() if stem not in stems]
    return [f"{count(len(alone), 'caption file')} without a picture of that name: {some(alone)}"] if alone else []
