"""Pictures during a run at fixed prompts and seeds; training's random state is not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator

from morelora import atomic
from trainer.config import PreviewConfig
from trainer.errors import InputError
from trainer.models import Bundle
from trainer.modes import untouched

CHUNK = 4
"""Prompts sampled together."""


def check_size(config: PreviewConfig, factor: int) -> None:
    """Raise ``InputError`` where a size is asked for that the VAE cannot draw; ``factor`` is its reduction."""
    for name, side in (("width", config.width), ("height", config.height)):
        if side is not None and side % factor:
            what = f"preview.{name} = {side}: this base model draws sides that are multiples of {factor}"
            raise InputError(what, f"set it to {side // factor * factor}, or leave it empty for data.resolution")


def sample(
    bundle: Bundle, config: PreviewConfig, prompts: list[str], side: int, told: Callable[[int], None] = lambda step: None
) -> list[Image.Image]:
    """One picture for each prompt; prompt ``i`` starts from the noise of seed ``config.seed + i``.

    ``side`` is that of a square picture where no size is set, rounded down to what the VAE can draw. ``told`` gets the number of
    each step that is done.
    """

    def stepped(pipeline: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        told(step + 1)
        return values

    factor = bundle.source.pixel_factor
    width, height = (chosen or side // factor * factor for chosen in (config.width, config.height))
    pictures: list[Image.Image] = []
    with untouched(bundle.unet, *bundle.text_encoders.values()):
        for start in range(0, len(prompts), CHUNK):
            some = prompts[start : start + CHUNK]
            latents = bundle.pipeline(
                **bundle.prompt_arguments(some, [config.negative] * len(some)),
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                width=width,
                height=height,
                generator=[Generator().manual_seed(config.seed + start + i) for i in range(len(some))],
                output_type="latent",
                callback_on_step_end=stepped,
            ).images
            # one by one: in float32 the VAE holds 3 GiB for a picture of 1024 pixels
            pictures += [to_image(bundle.decode_latents(one[None])[0]) for one in latents]
    return pictures


def to_image(picture: torch.Tensor) -> Image.Image:
    """``(3, H, W)`` in ``0 .. 1`` as an RGB picture."""
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())


def save_image(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    atomic.write_file(path, lambda temporary: image.save(temporary, format="PNG"))


def before_after(prompts: list[str], before: list[Image.Image], after: list[Image.Image]) -> Image.Image:
    """A sheet with a column for each prompt: base model above, with the adapter below."""
    shown = 192 if before[0].width < 192 else min(before[0].width, 384)
    tall = round(shown * before[0].height / before[0].width)
    margin, label = 8, 22
    font = ImageFont.load_default(13)
    width = margin + len(prompts) * (shown + margin)
    sheet = Image.new("RGB", (width, 3 * label + 2 * tall + 4 * margin), "white")
    draw = ImageDraw.Draw(sheet)
    tops = (label + margin, 2 * label + tall + 2 * margin)
    draw.text((margin, margin), "base model", fill="black", font=font)
    draw.text((margin, tops[0] + tall + margin), "with the adapter, same prompts and seeds", fill="black", font=font)
    for i, prompt in enumerate(prompts):
        left = margin + i * (shown + margin)
        for top, picture in zip(tops, (before[i], after[i]), strict=True):
            sheet.paste(picture.resize((shown, tall), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, tops[1] + tall + margin // 2), _fit(draw, prompt, shown, font), fill="black", font=font)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """``text`` cut with an ellipsis to ``width`` pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
