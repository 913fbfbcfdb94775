"""Captions: from files or file names to one line of text with the trigger word in it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from trainer.data.problems import Unusable

SUFFIXES = (".txt", ".caption")
"""Caption files in the order in which they are asked for."""
FILE_NAME = "file name"
MAX_BYTES = 65536

SEVERAL_LINES = "several lines"
BOTH_FILES = "both files"
NO_TRIGGER = "no trigger"
EMPTY = "empty"


@dataclass(frozen=True)
class Caption:
    """Text, where it came from, and what was done: ``SEVERAL_LINES``, ``BOTH_FILES``, ``NO_TRIGGER``, ``EMPTY``."""

    text: str
    source: str
    remarks: frozenset[str]


def stem_key(path: Path) -> str:
    """What a picture and its caption file share: the name without ending, composed (macOS writes e + accent)."""
    return unicodedata.normalize("NFC", path.stem)


def locate(picture: Path, files: dict[tuple[str, str], Path]) -> list[Path]:
    """The caption files of ``picture``, the one that counts first; ``files`` is by (stem key, suffix)."""
    return [files[key] for suffix in SUFFIXES if (key := (stem_key(picture), suffix)) in files]


def caption(picture: Path, located: list[Path], trigger: str) -> Caption:
    """The caption of ``picture`` from the first of its files, or from its name. Raises ``Unusable`` for that file."""
    raw = read(located[0]) if located else from_name(stem_key(picture))
    text = " ".join(raw.split())
    remarks = {
        SEVERAL_LINES: len([line for line in raw.splitlines() if line.strip()]) > 1,
        BOTH_FILES: len(located) > 1,
        NO_TRIGGER: bool(trigger.strip()) and bool(text) and not has_trigger(text, trigger),
        EMPTY: not text,
    }
    source = located[0].suffix.lower() if located else FILE_NAME
    return Caption(with_trigger(text, trigger), source, frozenset(name for name, true in remarks.items() if true))


def read(path: Path) -> str:
    """The text of a caption file: UTF-8, with or without a byte order mark. Raises ``Unusable``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise Unusable(f"has {len(data):,} bytes, which is no caption: {MAX_BYTES:,} are the most")
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
    return unicodedata.normalize("NFC", text)


def from_name(stem: str) -> str:
    """``red_fox_03`` -> ``red fox``: underscores are spaces, numbers at either end are an index and go."""
    words = re.sub(r"[\ud800-\udfff\ufffd_]", " ", stem).split()
    while words and _is_index(words[-1]):
        words.pop()
    while words and _is_index(words[0]):
        words.pop(0)
    if words:
        words[-1] = re.sub(r"(?<=[^\W\d_]{2})[-.]?\d+$", "", words[-1])
    return " ".join(words)


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the trigger stands in the caption as whole words, in capitals or not."""
    words = r"\s+".join(re.escape(word) for word in _normal(trigger).split())
    return re.search(rf"(?<!\w){words}(?!\w)", caption, re.IGNORECASE) is not None


def with_trigger(caption: str, trigger: str) -> str:
    """``TRIGGER, CAPTION`` where the caption lacks the trigger; the trigger alone where it is empty."""
    trigger = " ".join(_normal(trigger).split())
    if not trigger or not caption:
        return trigger or caption
    return caption if has_trigger(caption, trigger) else f"{trigger}, {caption}"


def without_trigger(caption: str, trigger: str) -> str:
    """The caption without the trigger: a tag of its own goes with its comma, words in a sentence close up."""
    words = r"\s+".join(re.escape(word) for word in _normal(trigger).split())
    if not words:
        return caption
    bare, found = re.subn(rf"(?<!\w){words}(?!\w)", "\0", caption, flags=re.IGNORECASE)
    if not found:
        return caption
    bare = re.sub(r"(^|,)\s*\0\s*(?=,|$)", "", bare).lstrip(", ")
    return " ".join(bare.replace("\0", " ").split())


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_index(word: str) -> bool:
    return re.fullmatch(r"[(\[#]?\d+[)\]]?", word) is not None
