"""A sheet of samples: a row for each model, a column for each concept."""

from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

COLUMNS = 12
SIDE, LABEL, HEAD = 128, 110, 20


def draw_sheet(rows: list[tuple[str, Tensor]], captions: list[str]) -> Image.Image:
    """Pictures ``(N, 3, H, W)`` in ``0 .. 1`` by the model's name, evenly chosen, drawn ``SIDE`` pixels large."""
    columns = min(COLUMNS, len(captions))
    chosen = [i * len(captions) // columns for i in range(columns)]
    sheet = Image.new("RGB", (LABEL + SIDE * columns, HEAD + SIDE * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, i in enumerate(chosen):
        draw.text((LABEL + SIDE * column + 4, 4), captions[i].partition(", ")[2], fill="black")
    for row, (name, pictures) in enumerate(rows):
        draw.text((4, HEAD + SIDE * row + SIDE // 2), name.removeprefix("pocket-"), fill="black")
        for column, i in enumerate(chosen):
            pixels = (pictures[i].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            shown = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(shown, (LABEL + SIDE * column, HEAD + SIDE * row))
    return sheet
