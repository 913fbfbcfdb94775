"""Rules ``tag-common``, ``tag-rare`` and ``tag-look``: what the captions of a set say together.

What captions name is learnt as theirs; what they leave unsaid becomes the trigger's. So a tag that nearly every caption has
takes the look away from the trigger, and so do words for the look itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from trainer.lint.finding import Finding, Severity
from trainer.lint.view import View

COMMON = 0.8
"""Share of the captions from which a tag is called common."""
FEWEST = 5
"""Captions without which shares say nothing."""
TAGS = 4
"""Tags a caption, on average, from which captions are lists of tags and not sentences."""
LOOKS = re.compile(
    r"\b(oil painting|watercolou?r|acrylic|gouache|pencil (drawing|sketch)|ink drawing|line art|pixel art|low poly|vector art|"
    r"flat (design|illustration)|anime style|manga|comic style|cartoon style|ghibli|art deco|art nouveau|ukiyo-e|"
    r"impressionis[mt]\w*|cubis[mt]\w*|in the style of|3d render|cel shad\w+|monochrome)\b",
    re.IGNORECASE,
)
"""Words for how a picture is made."""


def tag_common(view: View) -> Iterator[Finding]:
    """Tags, other than the trigger, in more than ``COMMON`` of the captions."""
    counts, captions = _counts(view)
    if captions < FEWEST:
        return
    for tag, number in counts.items():
        if number > COMMON * captions:
            problem = f"the tag {tag!r} is in {number} of {captions} captions: part of the look will be tied to it"
            fix = "leave it out of the captions, so that the trigger takes it; keep it if it must be asked for"
            yield Finding("tag-common", Severity.WARNING, (), problem, fix)


def tag_rare(view: View) -> Iterator[Finding]:
    """Tags that stand in one caption alone, where captions are lists of tags that are shared otherwise."""
    counts, captions = _counts(view)
    if captions < FEWEST or counts.total() < TAGS * captions:
        return
    rare = [tag for tag, number in counts.items() if number == 1]
    if rare and len(rare) <= len(counts) / 2:
        shown = ", ".join(repr(tag) for tag in rare[:8]) + (f" and {len(rare) - 8} more" if len(rare) > 8 else "")
        names = tuple(picture.name for picture in view.pictures if _tags(picture.caption, picture.trigger) & set(rare))
        fix = "look whether they are slips or other words for a tag that is used"
        yield Finding("tag-rare", Severity.INFO, names, f"tags in one caption only: {shown}", fix)


def tag_look(view: View) -> Iterator[Finding]:
    """Captions that put the look into words."""
    found: dict[str, list[str]] = {}
    for picture in view.pictures:
        for match in LOOKS.finditer(_without(picture.caption, picture.trigger)):
            found.setdefault(match.group().lower(), []).append(picture.name)
    for word, names in found.items():
        problem = f"captions name the look: {word!r}. It is learnt as the meaning of that word, not of the trigger"
        yield Finding(
            "tag-look", Severity.INFO, tuple(dict.fromkeys(names)), problem, "leave it out, if this is the style to learn"
        )


def _counts(view: View) -> tuple[Counter[str], int]:
    """In how many captions each tag is, and how many captions there are."""
    said = [_tags(picture.caption, picture.trigger) for picture in view.pictures if picture.caption.strip()]
    return Counter(tag for tags in said for tag in tags), len(said)


def _tags(caption: str, trigger: str) -> set[str]:
    """The parts between commas, small, without the trigger."""
    parts = (" ".join(part.lower().split()) for part in _without(caption, trigger).split(","))
    return {part for part in parts if part}


def _without(caption: str, trigger: str) -> str:
    words = r"\s+".join(re.escape(word) for word in trigger.split())
    return re.sub(rf"(?<!\w){words}(?!\w)", "", caption, flags=re.IGNORECASE) if words else caption
