"""Captions as people keep them: a file beside each picture, or one table for a whole folder.

Beside ``fox.png``: ``fox.txt``, ``fox.caption``, or ``fox.json`` with ``caption``, ``text`` or ``tags``. Tables: ``.jsonl`` with
an object a line (``{"file_name": "fox.png", "text": "a fox"}``, as Hugging Face data sets have), and ``.json`` with an object of
names (``{"fox.png": {"caption": "a fox", "tags": "red, snow"}}``, as kohya's scripts write; a name without ending or with
folders before it counts too). A file beside the picture goes before a table.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.problems import Unusable, count, shown, some

BESIDE = (".txt", ".caption", ".json")
"""Endings of files beside a picture, in the order in which they are asked for."""
TABLES = (".jsonl", ".json")
UNREAD = (".csv", ".tsv", ".parquet", ".yaml", ".yml")
"""Files that may hold captions and are not read, which is said."""
FILE_KEYS = ("file_name", "file", "image")
"""Names under which a line of a ``.jsonl`` may hold its picture."""
MAX_TEXT, MAX_TABLE = 1 << 16, 1 << 28
"""Most bytes of a text file and of JSON."""


@dataclass(frozen=True)
class Written:
    """A caption as somebody wrote it: its lines, and where. ``kind`` is the file's ending, of a table its whole name."""

    lines: tuple[str, ...]
    kind: str
    file: Path


@dataclass
class CaptionFiles:
    """All captions of a folder. Of a picture's several, the first counts."""

    written: dict[Path, list[Written]] = field(default_factory=lambda: defaultdict(list))
    unusable: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def stem_key(path: Path) -> tuple[Path, str]:
    """What a picture and its files share: folder, and name without ending, composed (macOS writes e + accent)."""
    return path.parent, _composed(path.stem)


def read_all(pictures: Sequence[Path], files: Iterable[Path]) -> CaptionFiles:
    """The captions that ``files`` hold for ``pictures``; every file that serves none is noted."""
    found = CaptionFiles()
    homes: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for picture in pictures:
        homes[stem_key(picture)].append(picture)
    alone: dict[str, list[Path]] = defaultdict(list)
    tables = []
    for file in sorted(files, key=_rank):
        suffix = file.suffix.lower()
        if suffix in BESIDE and stem_key(file) in homes:
            _read_beside(file, homes[stem_key(file)], found, alone)
        elif suffix in TABLES:
            tables.append(file)
        elif suffix in BESIDE:
            alone["caption file"].append(file)
        elif suffix in UNREAD:
            alone["unread"].append(file)
    lookup = _Lookup(pictures)
    for file in tables:
        _read_table(file, lookup, found, alone)
    found.notes += _notes(alone)
    return found


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, with or without a byte order mark. Raises ``Unusable``."""
    most = MAX_TEXT if path.suffix.lower() in (".txt", ".caption") else MAX_TABLE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise Unusable(f"has {len(data):,} bytes, which is no caption: {most:,} are the most")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unusable("is UTF-16 (byte 0): save it as UTF-8")
    mark = len(b"\xef\xbb\xbf") if data.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        where = mark + error.start
        raise Unusable(f"is not UTF-8: byte {where} is 0x{data[where]:02x}; save it as UTF-8") from error
    if "\0" in text:
        raise Unusable(f"has a zero at byte {data.index(0)}, as UTF-16 has: save it as UTF-8")
    return _composed(text)


def lines_of(value: Any) -> list[str] | None:
    """The captions in a JSON value; None where it holds none. Raises ``Unusable`` for a caption that is no text.

    A text or a list of texts is the caption itself. An object has it under ``caption`` or ``text``, and ``tags`` (a text or a
    list), which follow each caption after a comma.
    """
    if not isinstance(value, dict):
        return _texts(value, "the caption")
    caption = next((value[key] for key in ("caption", "text") if value.get(key) is not None), None)
    tags = value.get("tags")
    if caption is None and tags is None:
        return None
    listed = ", ".join(_texts(tags, "tags") if tags is not None else [])
    captions = _texts(caption, "the caption") if caption is not None else []
    return [", ".join(part for part in (text, listed) if part) for text in captions or [""]]


class _Lookup:
    """Pictures by what a table may call them."""

    def __init__(self, pictures: Sequence[Path]) -> None:
        self._places = {_composed(str(picture)): [picture] for picture in pictures}
        self._names: dict[str, list[Path]] = defaultdict(list)
        for picture in pictures:
            for name in {_composed(picture.name), _composed(picture.stem)}:
                self._names[name].append(picture)

    def find(self, table: Path, name: str) -> list[Path]:
        """The pictures of that name: by place beside the table, else by the last part of it."""
        name = _composed(name.replace("\\", "/"))
        return self._places.get(_composed(str(table.parent / name))) or self._names.get(name.rpartition("/")[2], [])


def _read_beside(file: Path, pictures: Sequence[Path], found: CaptionFiles, alone: dict[str, list[Path]]) -> None:
    try:
        text = read_text(file)
        lines = lines_of(_parse(text)) if file.suffix.lower() == ".json" else text.splitlines()
    except Unusable as error:
        found.unusable.append((file, str(error)))
        return
    if lines is None:
        alone["empty"].append(file)
        return
    for picture in pictures:
        found.written[picture].append(Written(tuple(lines), file.suffix.lower(), file))


def _read_table(file: Path, lookup: _Lookup, found: CaptionFiles, alone: dict[str, list[Path]]) -> None:
    captions: dict[Path, list[str]] = defaultdict(list)
    strangers = []
    try:
        for where, name, value in _rows(file):
            pictures = lookup.find(file, name)
            strangers += [] if pictures else [shown(name)]
            lines = _lines_at(where, value) if pictures else []
            for picture in pictures if lines else ():
                captions[picture] += lines
    except Unusable as error:
        found.unusable.append((file, str(error)))
        return
    if not captions:
        alone["empty"].append(file)
        return
    for picture, lines in captions.items():
        found.written[picture].append(Written(tuple(lines), shown(file.name), file))
    if strangers:
        found.notes.append(f"{count(len(strangers), 'caption')} in {shown(file.name)} without a picture: {some(strangers)}")


def _rows(file: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, name and value of each row that may be of a picture. Raises ``Unusable`` where the file is no JSON."""
    text = read_text(file)
    if file.suffix.lower() == ".json":
        values = _parse(text)
        yield from ((repr(name), name, value) for name, value in (values.items() if isinstance(values, dict) else ()))
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028 as it is
        if not line.strip():
            continue
        try:
            value = _parse(line)
        except Unusable as error:
            raise Unusable(f"line {number} {error}") from error
        name = next((value[key] for key in FILE_KEYS if key in value), None) if isinstance(value, dict) else None
        if isinstance(name, str):
            yield f"line {number}", name, value


def _lines_at(where: str, value: Any) -> list[str]:
    """The captions of a row; none where it holds other things. Raises ``Unusable`` that names the place."""
    try:
        return lines_of(value) or []
    except Unusable as error:
        raise Unusable(f"{where} {error}") from error


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"is not JSON: {error}") from error


def _texts(value: Any, what: str) -> list[str]:
    """A text's lines, or a list of texts. Raises ``Unusable``."""
    if isinstance(value, str):
        return _composed(value).splitlines()
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return [" ".join(_composed(text).split()) for text in value]
    raise Unusable(f"holds {what} as {json.dumps(value)[:40]}, which is no text")


def _notes(alone: dict[str, list[Path]]) -> Iterator[str]:
    """One sentence for each kind of file that gave no caption."""
    sentences = {
        "caption file": ("caption file", "without a picture of that name"),
        "empty": ("JSON file", "without a caption of a picture here"),
        "unread": ("file", "not read (captions are read from .txt, .caption, .json and .jsonl)"),
    }
    for kind, (thing, sentence) in sentences.items():
        if files := alone.get(kind):
            yield f"{count(len(files), thing)} {sentence}: {some([shown(file.name) for file in files])}"


def _rank(file: Path) -> tuple[int, Path]:
    order = (*BESIDE, ".jsonl")
    suffix = file.suffix.lower()
    return (order.index(suffix) if suffix in order else len(order)), file


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
