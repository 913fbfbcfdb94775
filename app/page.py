"""What a page is, and what pages share: the navigation above each, quiet events, and escaped HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gradio as gr

from app.text import say

if TYPE_CHECKING:
    from app.studio import Studio

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""For events that answer at once."""
WORKING: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
"""For events that take a while."""


@dataclass(frozen=True)
class Page:
    """A page. ``build`` makes its components and events inside the Blocks that it is given.

    ``path`` is the end of its address, '' for the first one, and the key of its texts: ``say("train.name")``.
    """

    path: str
    build: Callable[[Studio, gr.Blocks], None]

    @property
    def key(self) -> str:
        return self.path or "home"

    @property
    def name(self) -> str:
        return say(f"{self.key}.name")


def link(path: str, text: str, **query: str) -> str:
    """A link to a page, as HTML; works behind a prefix too."""
    asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return f"<a href='./{path}{'?' * bool(asked)}{html.escape(asked)}'>{html.escape(text)}</a>"


def navigation(pages: tuple[Page, ...], here: Page) -> str:
    """The links above a page."""
    links = [f"<a href='./{page.path}'{' aria-current=page' * (page is here)}>{html.escape(page.name)}</a>" for page in pages]
    return f"<nav class='pages' aria-label='{html.escape(say('nav.label'))}'><b>MoreLoRA</b>{''.join(links)}</nav>"


def note(text: str, kind: str = "") -> str:
    """A framed text; ``kind`` is good, warn or bad."""
    return f"<div class='note {kind}'>{html.escape(text)}</div>" if text else ""


def news(before: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Any]:
    """``new`` properties of components as updates; nothing is sent of those that a tab has as ``before``."""
    return [
        gr.skip() if before and old == update else gr.update(**update) for old, update in zip(before or new, new, strict=True)
    ]


def asked_run(request: gr.Request) -> str:
    """The run that the address names, as in ``./train?run=NAME``; '' where it names none."""
    return str(request.query_params.get("run", ""))


def address(file: Path) -> str:
    """Where the browser finds a file of an allowed folder."""
    return f"./gradio_api/file={quote(str(file))}"
