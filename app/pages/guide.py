"""The guide: the project's documents, their list beside them, and links between them that stay in the page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from app.documents import FIRST, Document, documents, headings, reference, shown, slug
from app.page import QUIET, Page
from app.studio import Studio
from app.text import say
from trainer.presets import read_text

IN_PLACE = """() => { document.addEventListener('click', (event) => {
    const link = event.target.closest('#document a');
    if (link && link.getAttribute('href').startsWith('./')) link.removeAttribute('target');
}, true); }"""
"""gradio opens every link of a text in a tab of its own."""
TO_HEADING = """() => { const look = (left) => {
    const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (found) found.scrollIntoView(); else if (left) setTimeout(look, 100, left - 1);
}; look(20); }"""
"""The text comes after the browser has looked for the heading that the address names."""


def build(studio: Studio, site: gr.Blocks) -> None:
    """The page."""
    with gr.Row(elem_id="guide"):
        with gr.Column(scale=1, min_width=220):
            contents = gr.HTML(padding=False, elem_id="contents")
        with gr.Column(scale=4, min_width=320):
            text = gr.Markdown(header_links=True, latex_delimiters=[], elem_id="document")
    site.load(None, None, None, js=IN_PLACE, **QUIET)
    site.load(enter, outputs=[contents, text], **QUIET).then(None, None, None, js=TO_HEADING, **QUIET)


PAGE = Page("guide", build)


def enter(request: gr.Request) -> list[Any]:
    """The document that the address names, as in ``./guide?doc=formats.md``; else the guide."""
    known = documents()
    document = known.get(str(request.query_params.get("doc", "")), known[FIRST])
    return [listed(known, document), shown(document, known)]


def listed(known: Mapping[str, Document], here: Document) -> str:
    """Links to the documents, and below the one that is open to its parts."""
    lines = []
    for document in known.values():
        if document.is_page:
            current = " aria-current='page'" * (document.name == here.name)
            lines.append(f"<a href='{reference(document.name)}'{current}>{html.escape(document.title)}</a>")
            lines += parts(document) * (document.name == here.name)
    return f"<nav class='contents' aria-label='{html.escape(say('guide.contents'))}'>{''.join(lines)}</nav>"


def parts(document: Document) -> list[str]:
    """Links to the headings of the second depth."""
    found = [text for depth, text in headings(read_text(document.file)) if depth == 2]
    return [f"<a class='part' href='{reference(document.name, slug(text))}'>{html.escape(text)}</a>" for text in found]
