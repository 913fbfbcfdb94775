"""What lies in the training folders: pictures, their masks, caption files, other files, and pictures where nobody looks.

A folder is flat, unless ``recursive`` is on; or it holds nothing but folders called ``REPEATS_NAME`` (``10_sks dog``), each of
which is then a source of its own: kohya's layout.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.config.data import MOST_REPEATS
from trainer.data import masks
from trainer.data.caption_files import stem_key
from trainer.data.formats import PICTURES
from trainer.data.kinds import kind_of, refusal
from trainer.data.problems import count, shown, some
from trainer.data.sources import Source
from trainer.errors import InputError

CONCEPT = re.compile(r"([1-9]\d*)_(.*\S.*)")
"""A folder's name in kohya's layout: repeats and the concept."""


@dataclass(frozen=True)
class Folder:
    """``others`` are files that are no pictures; ``unusable`` pairs a file with the reason."""

    source: Source
    pictures: list[Path]
    masks: dict[Path, Path]
    others: list[Path]
    unusable: list[tuple[Path, str]]
    notes: list[str]

    def without(self, skip: frozenset[Path]) -> Folder:
        """The folder as if these files were not there, and captions of such pictures with them."""
        kept = [file for file in self.pictures if file not in skip]
        gone = {stem_key(file) for file in self.pictures if file in skip} - {stem_key(file) for file in kept}
        return replace(
            self,
            pictures=kept,
            masks={file: mask for file, mask in self.masks.items() if mask not in skip},
            others=[file for file in self.others if file not in skip and stem_key(file) not in gone],
            unusable=[pair for pair in self.unusable if pair[0] not in skip],
        )


def read_folders(sources: Sequence[Source]) -> list[Folder]:
    """Sort the files of all folders by what they are. Raises ``InputError`` where a folder has no picture to train on."""
    return [folder for source in sources for folder in _read(source)]


def _read(source: Source) -> list[Folder]:
    files, folders = _entries(source)
    deeper = _deeper(source, folders)
    if any(kind_of(file) == "picture" for file in files):
        return [_sort(source, files, deeper)]
    concepts = _concepts(source, folders, deeper)
    return [folder for concept in concepts for folder in _read(concept)] or [_sort(source, files, deeper)]


def _sort(source: Source, files: list[Path], deeper: Counter[Path]) -> Folder:
    """The files of one source by what they are. Raises ``InputError`` where none is a picture."""
    if source.settings.recursive:
        files, deeper = _all_below(source), Counter()
    kinds = {file: kind_of(file) for file in files}
    unusable = [(file, reason) for file in files if (reason := refusal(file, kinds[file]))]
    pictures, beside = masks.split([file for file in files if kinds[file] == "picture"])
    if not pictures and not unusable:
        raise _nothing(source, files, deeper)
    others = [file for file in files if kinds[file] == "side"]
    notes = [*_deeper_notes(source, deeper), *_left_out(files, kinds), *_concept_note(source), *masks.unused(source, beside)]
    return Folder(source, pictures, masks.find(source, pictures, beside), others, unusable, notes)


def _entries(source: Source) -> tuple[list[Path], list[Path]]:
    """Files and folders, sorted by name, without hidden ones. Raises ``InputError``."""
    path = source.path
    what = f"{source.setting} = {str(path)!r}"
    fix = f"check the path; a relative one starts at {Path.cwd()}"
    try:
        found = sorted(path.iterdir(), key=lambda entry: _order(entry.name))
    except NotADirectoryError as error:
        raise InputError(f"{what} is a file, not a folder", f"give the folder it lies in: {path.parent}") from error
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist", fix) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}", fix) from error
    found = [entry for entry in found if not entry.name.startswith(".")]
    return [entry for entry in found if not entry.is_dir()], [entry for entry in found if entry.is_dir()]


def _all_below(source: Source) -> list[Path]:
    """Every file at any depth, without hidden ones and the masks' own folders; links to folders are not followed."""
    found: list[Path] = []
    for place, folders, names in os.walk(source.path):
        folders[:] = [name for name in folders if not (name.startswith(".") or masks.is_folder(source, Path(place, name)))]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: [_order(part) for part in file.relative_to(source.path).parts])


def _deeper(source: Source, folders: list[Path]) -> Counter[Path]:
    """Pictures one and two levels below the folder, by where they lie; a whole disk is not searched."""
    found: Counter[Path] = Counter()
    for folder in folders:
        if masks.is_folder(source, folder):
            continue
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")] if Path(place) == folder else []
            here = sum(Path(name).suffix.lower() in PICTURES and not name.startswith(".") for name in names)
            found.update({Path(place): here} if here else {})
    return found


def _concepts(source: Source, folders: list[Path], deeper: Counter[Path]) -> list[Source]:
    """The sources in kohya's layout: every folder with pictures lies right here and is called ``REPEATS_NAME``, or none."""
    tops = {folder for folder in folders if any(folder in (place, *place.parents) for place in deeper)}
    named = {folder: CONCEPT.fullmatch(folder.name) for folder in folders if folder in tops}
    if not all(match and (source.settings.recursive or deeper[folder]) for folder, match in named.items()):
        return []
    return [_concept(source, folder, match) for folder, match in named.items() if match]


def _concept(source: Source, folder: Path, match: re.Match[str]) -> Source:
    """The folder's own repeats multiply those of its source. Raises ``InputError`` where that is beyond all sense."""
    repeats = int(match[1]) * source.settings.repeats
    if repeats > MOST_REPEATS:
        what = f"{folder} asks by its name for {repeats} repeats; {MOST_REPEATS} are the most"
        raise InputError(what, "give it a name such as 1_photos, or name it in [[data.sources]]")
    settings = source.settings.model_copy(update={"repeats": repeats})
    return replace(source, path=folder, settings=settings, concept=" ".join(match[2].replace("_", " ").split()))


def _nothing(source: Source, files: list[Path], deeper: Counter[Path]) -> InputError:
    path = source.path
    if deeper:
        best, number = deeper.most_common(1)[0]
        if CONCEPT.fullmatch(best.name) and best.parent != path:
            best, number = best.parent, sum(deeper[place] for place in deeper if place.parent == best.parent)
        places = some([f"{amount} in {shown(place.relative_to(path))}" for place, amount in deeper.most_common()])
        return InputError(
            f"no picture in {path}: {deeper.total()} found in folders below it ({places})",
            f"set {source.setting} to one of them, such as {shown(best)} ({count(number, 'picture')}), "
            "name several in [[data.sources]], call all of them REPEATS_NAME (10_cat), or set data.recursive = true",
        )
    fix = "put pictures (PNG, JPEG, WebP ...) into it, or give another folder"
    if not files:
        return InputError(f"no picture in {path}: the folder is empty", fix)
    endings = Counter(file.suffix.lower() or "without an ending" for file in files)
    held = some([f"{number} {ending}" for ending, number in endings.most_common()], 5)
    return InputError(f"no picture in {path}: it holds only {held}", fix)


def _deeper_notes(source: Source, deeper: Counter[Path]) -> Iterator[str]:
    if deeper:
        places = some([f"{number} in {shown(place.relative_to(source.path))}" for place, number in deeper.most_common()])
        yield f"pictures in subfolders are not used (data.recursive is off): {places}"


def _left_out(files: Sequence[Path], kinds: Mapping[Path, str]) -> Iterator[str]:
    if unknown := [shown(file.name) for file in files if kinds[file] == "unknown"]:
        yield f"left out, since not pictures: {some(unknown)}"


def _concept_note(source: Source) -> Iterator[str]:
    if not source.concept and CONCEPT.fullmatch(source.path.name):
        yield f"the name {shown(source.path.name)} sets no repeats here: for that, give the folder above it"


def _order(name: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", name), name
