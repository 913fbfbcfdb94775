"""A base model on disk of which only configs and headers have been read: what it is, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers

from trainer.errors import InputError
from trainer.models.parts import Part

Family = Literal["sd1", "sd2", "sdxl"]
OTHER_WORK = {9: "an inpainting model", 8: "an instruct-pix2pix model", 7: "an upscaler", 5: "a depth model"}
"""What a UNet does that takes so many channels, where latents have 4."""
NAMES: dict[str, str] = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}


@dataclass(frozen=True)
class Source:
    """Everything about a base model but its weights."""

    path: Path
    family: Family
    parts: dict[str, Part]
    """``unet``, ``vae``, ``text_encoder`` and, in SDXL, ``text_encoder_2``."""
    tokenizers: dict[str, Path]
    """Folder of each tokenizer's config, by the pipeline's name for it."""
    scheduler: Mapping[str, Any]
    """The sampler's config: betas, and what the model predicts."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """A single file's text entries and mark tensors, which may tell what it predicts."""
    is_file: bool = False

    @property
    def pixel_factor(self) -> int:
        """Pixels on the side of one latent position."""
        widths = self.parts["vae"].config.get("block_out_channels")
        if not widths:
            raise InputError(f"the VAE's config of {self.path} has no block_out_channels", "copy the model folder again")
        return 2 ** (len(widths) - 1)

    def check(self) -> None:
        """Raises ``InputError`` where the parts do not fit each other, or do another work than text to image."""
        channels, latent = self.parts["unet"].config.get("in_channels"), self.parts["vae"].config.get("latent_channels")
        if channels != latent:
            fix = "train on the text-to-image model that it was made from, then use the adapter on both"
            if channels not in OTHER_WORK:
                fix = "use the model's own VAE: leave model.vae empty, or copy the whole model again"
            raise InputError(
                f"{self.path} is {OTHER_WORK.get(channels, 'no model for this VAE')}: its UNet takes {channels} channels where "
                f"the VAE's latents have {latent}",
                fix,
            )
        sampler = str(self.scheduler.get("_class_name"))
        if sampler.startswith(("EDM", "FlowMatch")) or not hasattr(diffusers, sampler):
            raise InputError(
                f"{self.path} has the sampler {sampler}, which is none of a discrete noise schedule",
                "use an SD 1.x, SD 2.x or SDXL model; scheduler/scheduler_config.json names its sampler",
            )
