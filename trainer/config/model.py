"""Settings of the base model."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Precision, Section, setting


class ModelConfig(Section):
    """The base model."""

    base: str = setting(
        "pocket",
        "The base model: a folder in diffusers form, a single .safetensors checkpoint, or 'pocket' for the one that ships.",
        "basic",
    )
    family: Literal["auto", "sd1", "sd2", "sdxl"] = setting(
        "auto", "Family of the base model: auto tells it from the model, any other is checked against it."
    )
    vae: str | None = setting(None, "Another VAE than the base model's own: its folder or .safetensors file.")
    dtype: Precision = setting("fp32", "Precision that the frozen base model is held in; its VAE always has fp32.")
    objective: Literal["auto", "epsilon", "v_prediction"] = setting(
        "auto", "What the base predicts: auto takes it from the model where it says so, and tells what is assumed where not."
    )
    zero_terminal_snr: bool | None = setting(
        None,
        "Noise schedule that ends in pure noise, for bases that predict the velocity and were made so; empty: as the base says.",
    )
    clip_skip: int = setting(
        1,
        "Layer of the text encoder that is read, counted back from the family's usual one: 1 is that one, 2 the one before.",
        ge=1,
        le=12,
    )
    caption_chunks: int = setting(
        1, "Chunks of 75 tokens that a caption may have; longer captions are cut there. More chunks take more time.", ge=1, le=10
    )
