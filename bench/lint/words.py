"""Faults of captions, each in several forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.lint.scene import THINGS, Scene, captioned, clean, view
from trainer.data import images
from trainer.data.captions import FILE_NAME, NO_TRIGGER

ODD = {
    "placeholder": ["mystyle, TODO", "untitled", "mystyle, a photo of"],
    "markup": ["mystyle, <b>fox</b>", "mystyle, salt &amp; pepper", "mystyle, <lora:x:1> fox", "see https://example.com"],
    "unseen characters": ["mystyle, a fo\u200bx", "mystyle, a fox\u00ad den", "\u202emystyle, fox", "mystyle,\ufeff fox"],
    "wrong encoding": ["mystyle, a caf\u00c3\u00a9", "mystyle, it\u00e2\u20ac\u2122s late", "mystyle, na\ufffdve"],
}
SLIPS = (
    "mystlye, a fox",
    "mysytle, a fox",
    "my style, a fox",
    "mystyl, a fox",
    "my-style, a fox",
    "mystile, a fox",
    "Mystylee, a fox",
)
TAGGED = ["red", "blue", "tree", "sky", "river", "house", "night", "snow"]


def captions() -> Iterator[Scene]:
    """Missing, empty, odd, too long, without the trigger."""
    for strength, texts in ODD.items():
        yield captioned("caption-odd", strength, texts)
    pictures = [replace(p, name=f"IMG_{i:04}.png", captions=(f"IMG_{i:04}",)) if i < 3 else p for i, p in enumerate(clean())]
    yield Scene("caption-odd", "only the file's name", view(pictures), frozenset(p.name for p in pictures[:3]))
    yield captioned("caption-empty", "no words", ["", "  ", ",", "."])
    yield captioned("caption-missing", "other pictures have files", ["leaves", "landscape"], source=FILE_NAME)
    names = ("DSC01234", "a3f81c0b9d", "00017", "Screenshot 2024-05-01", "IMG_20240501_123")
    nameless = [
        replace(p, name=f"{names[i]}.png", captions=("",), source=FILE_NAME) if i < len(names) else replace(p, source=FILE_NAME)
        for i, p in enumerate(clean())
    ]
    yield Scene("caption-missing", "names that say nothing", view(nameless), frozenset(f"{name}.png" for name in names))
    lost = frozenset((NO_TRIGGER,))
    yield captioned("trigger", "a slip in it", SLIPS, remarks=lost)
    yield captioned("trigger", "not there", [f"{thing} again" for thing in THINGS[:3]], remarks=lost)
    yield Scene("tokens", "30 words too many", *_too_long())


def tags() -> Iterator[Scene]:
    """Tags of nearly all captions, of one caption alone, and words for the look."""
    for share in (1.0, 0.85):
        pictures = [
            replace(p, captions=(f"{p.caption}, solo" if i < share * len(clean()) else p.caption,)) for i, p in enumerate(clean())
        ]
        yield Scene("tag-common", f"in {share:.0%}", view(pictures), frozenset(("solo",)))
    listed = [
        replace(p, captions=(", ".join(["mystyle", *(TAGGED[(i * 3 + k * (1 + i % 2)) % len(TAGGED)] for k in range(5))]),))
        for i, p in enumerate(clean())
    ]
    listed[4] = replace(listed[4], captions=(listed[4].caption + ", houze",))
    yield Scene("tag-rare", "a slip in one", view(listed), frozenset((listed[4].name,)))
    yield captioned(
        "tag-look",
        "how it is made",
        ["mystyle, oil painting of a fox", "mystyle, a boat, watercolor", "mystyle, a cow, anime style"],
    )


def conversions() -> Iterator[Scene]:
    """What decoding did."""
    for remark in (images.ANIMATED, images.TRANSPARENT, images.CMYK, images.PROFILE, images.EXIF):
        yield captioned("conversion", remark, [clean()[0].caption], remarks=frozenset((remark,)))
    broken = (("torn.png", "is cut off"), ("note.txt", "is not UTF-8: byte 3 is 0xff; save it as UTF-8"))
    yield Scene("unusable", "torn", view(clean(), unusable=broken), frozenset(("torn.png", "note.txt")))


def _too_long() -> tuple[object, frozenset[str]]:
    """A text encoder that reads 20 words, and two captions of 50."""
    pictures = [replace(p, captions=(f"{p.caption} {'and more ' * 20}".strip(),)) if i < 2 else p for i, p in enumerate(clean())]
    seen = view(pictures, overflow=lambda caption: " ".join(caption.split()[20:]))
    return seen, frozenset(p.name for p in pictures[:2])
