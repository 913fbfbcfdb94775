"""All pages as one gradio app, and how it is drawn: fonts of the machine, nothing from elsewhere."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import AppError

from app import errors
from app.page import navigation
from app.pages import PAGES
from app.studio import Studio

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
THEME: dict[str, Any] = {
    "block_title_background_fill": "none", "block_title_text_color": "*body_text_color", "block_title_padding": "0",
    "block_label_background_fill": "none", "block_label_background_fill_dark": "none", "block_label_border_width": "0",
    "block_label_text_color": "*body_text_color", "block_label_shadow": "none", "body_background_fill": "*neutral_100",
    "block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300",
    "input_border_width": "1px", "input_border_color": "*neutral_300", "input_border_color_dark": "*neutral_600",
    "button_secondary_background_fill": "*neutral_200", "button_secondary_background_fill_dark": "*neutral_700",
    "button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_700",
    "checkbox_label_background_fill": "*neutral_50", "checkbox_label_background_fill_selected": "*primary_600",
    "input_placeholder_color": "*neutral_500", "input_placeholder_color_dark": "*neutral_300",
    "link_text_color_visited": "*primary_600", "link_text_color_dark": "*primary_300",
    "link_text_color_hover_dark": "*primary_200", "link_text_color_visited_dark": "*primary_300",
    "link_text_color_active_dark": "*primary_200",
}  # fmt: skip
LOOK = {
    "theme": gr.themes.Soft(primary_hue="indigo", font=FONT, font_mono=["ui-monospace", "Consolas", "monospace"]).set(**THEME),
    "css_paths": [Path(__file__).parent / "style.css"],
}
KEPT = (3600, 86400)
"""Seconds: how often old copies of uploads are looked for, and how old they get."""


class Site(gr.Blocks):
    """Blocks that say what went wrong in a page's function, where gradio says ``Error``."""

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        """As gradio's. Raises ``gr.Error`` with words for the user in place of any other error."""
        try:
            return await super().process_api(*given, **named)
        except AppError:
            raise
        except Exception as error:
            raise gr.Error(html.escape(errors.words(error)), print_exception=False) from error


def build(studio: Studio) -> gr.Blocks:
    """The app over one studio."""
    with Site(title="MoreLoRA", analytics_enabled=False, delete_cache=KEPT) as site:
        _fill(site, studio, 0)
    for number in range(1, len(PAGES)):
        with site.route(PAGES[number].name, f"/{PAGES[number].path}", show_in_navbar=False):
            _fill(site, studio, number)
    return site


def _fill(site: gr.Blocks, studio: Studio, number: int) -> None:
    page = PAGES[number]
    gr.HTML(navigation(PAGES, page), padding=False)
    page.build(studio, site)
