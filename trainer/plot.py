"""How often each timestep is drawn, as a picture: ``python3 launch.py --plot-timesteps FILE.png`` beside any settings."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from trainer.diffusion.density import Density

WIDTH, HEIGHT, MARGIN, LABEL = 640, 320, 24, 22
TICKS = 5
CUT = 6.0
"""What is drawn more than this many times as often as by uniform draws is cut off."""


def timesteps_plot(density: Density, total: int = 1000) -> Image.Image:
    """The probabilities of all timesteps as an area, relative to uniform draws, whose level is marked; cut off at ``CUT``."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    left, right, top, bottom = MARGIN, WIDTH - MARGIN, MARGIN + LABEL, HEIGHT - 2 * LABEL
    p = density.probabilities(total)
    shown = [total * sum(column) / len(column) for column in _columns(p, right - left)]
    scale = (bottom - top) / min(CUT, max(shown))
    for x, value in enumerate(shown, left):
        draw.line((x, bottom, x, bottom - min(CUT, value) * scale), fill="#7aa6d6")
    level = round(bottom - scale)
    draw.line((left, level, right, level), fill="#888888")
    draw.text((left + 4, level - 15 if level > top + 15 else level + 2), "uniform = 1", fill="#555555", font=font)
    draw.line((left, bottom, right, bottom), fill="black")
    draw.text((left, MARGIN // 2), f"{describe(density)}; at most {max(shown):.3g} times uniform", fill="black", font=font)
    for tick in range(TICKS):
        t = round((total - 1) * tick / (TICKS - 1))
        draw.text((left + (right - left) * tick / (TICKS - 1), bottom + 4), str(t), fill="black", font=font, anchor="ma")
    draw.text((left, HEIGHT - LABEL), "least noise: detail", fill="#555555", font=font)
    draw.text((right, HEIGHT - LABEL), "most noise: look and composition", fill="#555555", font=font, anchor="ra")
    return sheet


def describe(density: Density) -> str:
    """``logit_normal (mean 0, std 1), timesteps 0 to 999``."""
    shape = f" (mean {density.mean:g}, std {density.std:g})" if density.kind == "logit_normal" else ""
    return f"{density.kind}{shape}, timesteps {density.first} to {density.last}"


def _columns(values: list[float], count: int) -> list[list[float]]:
    """The values in ``count`` runs of nearly equal length, none of them empty."""
    edges = [len(values) * i // count for i in range(count + 1)]
    return [values[low : max(high, low + 1)] for low, high in zip(edges, edges[1:], strict=False)]
