"""Captions as tags that commas part, and the mark ``|||`` between tags that stay and tags that may move."""

from __future__ import annotations

from collections.abc import Iterable

SEPARATOR = "|||"


def split(text: str) -> list[str]:
    """The tags of a text."""
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def joined(parts: Iterable[str]) -> str:
    """Parts with a comma and a space between each and the next; empty ones leave nothing."""
    return ", ".join(text for part in parts if (text := part.strip(" ,")))


def whole(text: str) -> str:
    """The text without its marks; one that has none stays as it is."""
    return joined(text.split(SEPARATOR)) if SEPARATOR in text else text
