"""How the pages are drawn: what is written can be read on what it stands on."""

from __future__ import annotations

import re

import pytest

from app.site import LOOK

LEAST = 4.5
"""Contrast that WCAG 2.1 (level AA) asks of small text."""


def colour(name: str) -> str:
    """A colour of the theme as ``#rrggbb``; those of dark pages end in ``_dark``."""
    theme = LOOK["theme"]
    found = getattr(theme, name) or getattr(theme, name.removesuffix("_dark"))
    ending = "_dark" if name.endswith("_dark") else ""
    while not found.startswith("#"):
        if found == "white":
            return "#ffffff"
        named = found.removeprefix("*")
        found = getattr(theme, named + ending, None) or getattr(theme, named)
    return found


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.1, from sRGB."""
    parts = [int(part, 16) / 255 for part in re.findall("..", colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_measure_is_that_of_wcag():
    assert luminance("#ffffff") == pytest.approx(1.0) and luminance("#000000") == 0.0
    assert luminance("#808080") == pytest.approx(0.2159, abs=1e-4)


@pytest.mark.parametrize("ending", ["", "_dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("link_text_color", "block_background_fill"), ("link_text_color", "body_background_fill"),
        ("link_text_color_visited", "block_background_fill"), ("link_text_color_visited", "body_background_fill"),
        ("link_text_color_hover", "block_background_fill"), ("link_text_color_active", "block_background_fill"),
        ("input_placeholder_color", "input_background_fill"), ("block_info_text_color", "block_background_fill"),
        ("button_primary_text_color", "button_primary_background_fill"),
        ("button_primary_text_color", "button_primary_background_fill_hover"),
        ("button_secondary_text_color", "button_secondary_background_fill"),
        ("checkbox_label_text_color_selected", "checkbox_label_background_fill_selected"),
    ],
)  # fmt: skip
def test_texts_have_contrast(text, ground, ending):
    brighter, darker = sorted((luminance(colour(text + ending)), luminance(colour(ground + ending))), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= LEAST
