"""Rules of single captions: missing, empty, odd, without the trigger or with a misspelt one, too long for the text encoder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import PurePath

from trainer.data.captions import FILE_NAME, NO_TRIGGER, has_trigger
from trainer.lint.finding import Finding, Severity
from trainer.lint.view import Picture, View

PLACEHOLDERS = frozenset((
    "todo", "tbd", "fixme", "caption", "captions", "description", "image", "picture", "photo", "img", "untitled", "none", "null",
    "nan", "n/a", "na", "undefined", "test", "unknown", "error", "asdf", "foo", "bar", "placeholder", "your caption here", "xxx",
    "a photo of", "a picture of", "an image of", "image of", "picture of", "photo of", "text", "-", "?", ".", "...",
))  # fmt: skip
"""Captions that are nothing but one of these say nothing."""
MARKUP = re.compile(
    r"</?[a-z][a-z0-9]*(\s[^<>]*)?/?>|&(#\d+|#x[0-9a-f]+|[a-z]+);|<(lora|lyco|hypernet):|https?://", re.IGNORECASE
)
MOJIBAKE = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bb\u00bf")
"""UTF-8 that was read as Latin-1 or Windows-1252, and characters that could not be read at all."""
MEANINGLESS = re.compile(
    r"(img|dsc|dscn|dscf|pxl|p|mvi|image|screenshot|screen shot|capture|download|unnamed|untitled|file|pic|photo)?"
    r"[\W_\d]*(copy|final|edit)?[\W_\d]*|[0-9a-f]{8,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
"""File names that cameras, browsers and programs give."""
CAPTION_ENDINGS = (
    ".txt",
    ".caption",
    ".text",
    ".tags",
    ".cap",
    ".captions",
    ".tag",
    ".md",
    ".rtf",
    ".doc",
    ".docx",
    ".odt",
    ".csv",
)

SHOWN = 120
"""Letters of what is cut that are shown."""


def caption_missing(view: View) -> Iterator[Finding]:
    """No caption file, and a file name that says nothing, or other pictures that have files."""
    lacking = [picture for picture in view.pictures if picture.source == FILE_NAME]
    mixed = len(lacking) < len(view.pictures)
    for picture in lacking:
        stem = PurePath(picture.name).stem
        silent = not picture.caption or MEANINGLESS.fullmatch(stem) is not None
        if silent or mixed:
            what = f"its name, {picture.caption!r}, says nothing" if silent else f"its name {picture.caption!r} serves instead"
            stranger = _stranger(picture, view.strangers)
            fix = f"rename {stranger} to {stem}.txt" if stranger else f"write {stem}.txt: what is in the picture, in words"
            yield Finding("caption-missing", Severity.WARNING, (picture.name,), f"no caption file is read; {what}", fix)
    if lacking and not mixed:
        yield Finding("caption-missing", Severity.INFO, (), "captions are the file names", "write caption files to say more")


def caption_empty(view: View) -> Iterator[Finding]:
    """A caption file without words."""
    for picture in view.pictures:
        if picture.source != FILE_NAME and _is_empty(picture):
            fix = "write what is in the picture, in words"
            yield Finding("caption-empty", Severity.WARNING, (picture.name,), "its caption has no words", fix)


def caption_odd(view: View) -> Iterator[Finding]:
    """Captions that are placeholders, file names or markup, or hold characters that nobody sees or that were misread."""
    for picture in view.pictures:
        if picture.source == FILE_NAME or _is_empty(picture):
            continue
        for problem, fix in _oddities(picture):
            yield Finding("caption-odd", Severity.WARNING, (picture.name,), problem, fix)


def trigger(view: View) -> Iterator[Finding]:
    """Captions without the trigger, or with what looks like a slip in it."""
    lacking = [picture for picture in view.pictures if NO_TRIGGER in picture.remarks and picture.source != FILE_NAME]
    slips = {picture.name: misspelling(picture.caption, picture.trigger) for picture in lacking}
    for picture in lacking:
        if slip := slips[picture.name]:
            problem = f"it says {slip!r}, which is not the trigger {picture.trigger!r}: both would be learnt"
            yield Finding("trigger", Severity.WARNING, (picture.name,), problem, f"write {picture.trigger!r} in its caption")
    plain = tuple(picture.name for picture in lacking if not slips[picture.name])
    if plain and len(plain) < len(view.pictures):
        problem = "the trigger is not in these captions, though in others: it is put before them"
        yield Finding("trigger", Severity.WARNING, plain, problem, "write the trigger into them, or leave it out of all")
    elif plain:
        yield Finding(
            "trigger", Severity.INFO, (), "no caption has the trigger: it is put before all", "nothing, if that is meant"
        )


def tokens(view: View) -> Iterator[Finding]:
    """Captions whose end the text encoder does not see, with the words that are cut."""
    for picture in view.pictures:
        before = f"{picture.trigger}, " if NO_TRIGGER in picture.remarks else ""
        lost = next((cut for caption in picture.captions if (cut := view.overflow(f"{before}{caption}"))), "")
        if lost:
            shown = lost if len(lost) <= SHOWN else f"{lost[:SHOWN]} ..."
            problem = f"its caption is too long for the text encoder, which does not see: {shown!r}"
            yield Finding("tokens", Severity.WARNING, (picture.name,), problem, "shorten it, or put what matters first")


def misspelling(caption: str, wanted: str) -> str:
    """The words of ``caption`` that come within a slip or two of ``wanted`` without being it; empty where none do."""
    if has_trigger(caption, wanted):
        return ""
    target = _folded(wanted)
    allowed = 1 if len(target) < 8 else 2
    if len(target) < 4:
        return ""
    words = re.findall(r"[^\s,;.]+", caption)
    length = len(wanted.split())
    for count in sorted({length, max(1, length - 1), length + 1}):
        for start in range(len(words) - count + 1):
            said = " ".join(words[start : start + count])
            if _folded(said)[:1] == target[:1] and distance(_folded(said), target) <= allowed:
                return said
    return ""


def distance(one: str, other: str) -> int:
    """Letters to add, drop, change or swap to make one of the other (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _is_empty(picture: Picture) -> bool:
    return not picture.caption.strip(" \t,.;|")


def _oddities(picture: Picture) -> Iterator[tuple[str, str]]:
    text = picture.caption
    without = _without(text, picture.trigger)
    stem = PurePath(picture.name).stem
    if without.casefold() in PLACEHOLDERS:
        yield f"its caption says only {text!r}", "write what is in the picture, in words"
    elif MEANINGLESS.fullmatch(stem) and _folded(without) in (_folded(stem), _folded(PurePath(picture.name).name)):
        yield f"its caption is only the file's name {text!r}", "write what is in the picture, in words"
    if found := MARKUP.search(text):
        yield f"its caption holds markup: {found.group()!r}", "leave only words"
    if hidden := [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cn")]:
        codes = ", ".join(dict.fromkeys(f"U+{ord(letter):04X}" for letter in hidden))
        yield f"its caption holds {len(hidden)} characters that nobody sees ({codes})", "type it again, without copying"
    if found := MOJIBAKE.search(text):
        yield f"its caption was saved in the wrong encoding: {found.group()!r}", "write it again as UTF-8"


def _without(text: str, trigger: str) -> str:
    """The caption without the trigger and the commas around it."""
    if trigger.strip():
        text = re.sub(re.escape(trigger.strip()), "", text, flags=re.IGNORECASE)
    return text.strip(" ,")


def _stranger(picture: Picture, strangers: tuple[str, ...]) -> str:
    """A file that is likely meant as the picture's caption, though nothing reads it; empty where there is none."""
    home, wanted = PurePath(picture.name).parent, _core(PurePath(picture.name).name)
    candidates = [PurePath(name) for name in strangers if PurePath(name).parent == home]
    return next((path.name for path in candidates if path.suffix.lower() in CAPTION_ENDINGS and _core(path.name) == wanted), "")


def _core(name: str) -> str:
    """A file's name without endings of pictures and captions, spaces and capitals."""
    return re.sub(r"([ _-]?captions?)?(\.\w{2,8})+$", "", name.strip().lower()).strip()


def _folded(text: str) -> str:
    """Letters and digits alone, small."""
    return re.sub(r"[\W_]+", "", text.casefold())
