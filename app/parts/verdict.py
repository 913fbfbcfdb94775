"""Whether a recipe can be trained, as HTML: what is wrong with it, or what it lacks and where that is given."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from app.page import link, note
from app.text import say

BY_PICTURES = {"pictures", "no_folder"}
"""What is missing that the page of pictures mends."""

Missing = Iterable[tuple[str, str]]


def verdict(judged: Mapping[str, Any]) -> str:
    """The whole of it, of ``trainer.answers.check``."""
    if judged["problem"]:
        return note(judged["problem"], "bad")
    missing = judged["missing"]
    if not missing:
        return note(say("recipe.fine"), "good")
    to_pictures = link("dataset", say("recipe.to_pictures")) if BY_PICTURES & {kind for kind, _ in missing} else ""
    return f"<div class='note warn'>{html.escape(lacks(missing))}{' ' * bool(to_pictures)}{to_pictures}</div>"


def lacks(missing: Missing) -> str:
    """A sentence for each thing that is missing; '' where nothing is."""
    return "\n".join(say(f"recipe.missing.{kind}", path=path) for kind, path in missing)
