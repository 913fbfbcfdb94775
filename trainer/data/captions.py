"""Captions: from what was written, or from a name, to what the text encoder may read, with the trigger word in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.data.caption_files import Written, stem_key
from trainer.data.sources import Source
from trainer.data.wildcards import all_texts, has_choices

SETTING, FOLDER_NAME, FILE_NAME = "data.caption", "folder name", "file name"
"""Where captions come from that nobody wrote."""

SEVERAL_LINES = "several lines"
NO_TRIGGER = "no trigger"
EMPTY = "empty"
CHOICES = "choices"

LOOKED_THROUGH = 1000
"""Texts of a caption with choices that are searched for the trigger."""


@dataclass(frozen=True)
class Caption:
    """``texts``: alternatives, at least one, which may hold choices; ``plain``: the same without the trigger.

    ``remarks`` say what was noticed: ``SEVERAL_LINES``, ``NO_TRIGGER``, ``EMPTY``, ``CHOICES``; ``rivals`` are the kinds of files
    that hold another caption, which is not used.
    """

    texts: tuple[str, ...]
    plain: tuple[str, ...]
    kind: str
    file: Path | None
    remarks: frozenset[str] = frozenset()
    rivals: tuple[str, ...] = ()


def caption(picture: Path, written: Sequence[Written], source: Source) -> Caption:
    """The caption of ``picture``: the first that was written, or else the source's own, its concept, or the picture's name."""
    used = written[0] if written else _fallback(picture, source)
    found = [text for line in used.lines if (text := " ".join(line.split()))]
    lines = {"join": [" ".join(found)], "first": found[:1], "random": found}[source.settings.caption_lines] or [""]
    bare = tuple(_dressed(line, source) for line in lines)
    texts = tuple(with_trigger(text, source.trigger) for text in bare)
    remarks = {
        SEVERAL_LINES: len(found) > 1,
        NO_TRIGGER: any(text and text != triggered for text, triggered in zip(bare, texts, strict=True)),
        EMPTY: not any(bare),
        CHOICES: any(has_choices(text) for text in bare),
    }
    return Caption(
        texts=texts,
        plain=tuple(without_trigger(text, source.trigger) for text in bare),
        kind=used.kind,
        file=used.file if written else None,
        remarks=frozenset(name for name, true in remarks.items() if true),
        rivals=tuple(other.kind for other in written[1:] if _words(other) != _words(used)),
    )


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
    """Whether the trigger stands as whole words, in capitals or not, in every text that the caption stands for."""
    words = _pattern(trigger)
    try:
        return all(words.search(text) for text in all_texts(caption, LOOKED_THROUGH))
    except ValueError:
        return False


def with_trigger(caption: str, trigger: str) -> str:
    """``TRIGGER, CAPTION`` where the caption lacks the trigger; the trigger alone where it is empty."""
    trigger = " ".join(_composed(trigger).split())
    if not trigger or not caption:
        return trigger or caption
    return caption if has_trigger(caption, trigger) else f"{trigger}, {caption}"


def without_trigger(caption: str, trigger: str) -> str:
    """The caption without the trigger: a tag of its own goes with its comma, words in a sentence close up."""
    if not trigger.strip():
        return caption
    bare, found = _pattern(trigger).subn("\0", caption)
    if not found:
        return caption
    bare = re.sub(r"(^|,)\s*\0\s*(?=,|$)", "", bare).lstrip(", ")
    return " ".join(bare.replace("\0", " ").split())


def _fallback(picture: Path, source: Source) -> Written:
    """A caption that nobody wrote."""
    ways = ((source.settings.caption, SETTING), (source.concept, FOLDER_NAME), (from_name(stem_key(picture)[1]), FILE_NAME))
    return next(Written((text,), kind, picture) for text, kind in ways if text or kind == FILE_NAME)


def _dressed(line: str, source: Source) -> str:
    """Between prefix and suffix, each after a space; none is left before a comma."""
    parts = (source.settings.caption_prefix, line, source.settings.caption_suffix)
    return re.sub(r" +,", ",", " ".join(" ".join(parts).split())) if parts != ("", line, "") else line


def _pattern(trigger: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in _composed(trigger).split())
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def _words(written: Written) -> list[str]:
    return " ".join(written.lines).split()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_index(word: str) -> bool:
    return re.fullmatch(r"[(\[#]?\d+[)\]]?", word) is not None
