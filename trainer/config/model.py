"""Settings of the base model."""

from __future__ import annotations

from trainer.config.base import Precision, Section, setting


class ModelConfig(Section):
    """The base model."""

    base: str = setting("pocket", "Folder of the base model in diffusers form, or 'pocket' for the one that ships.", "basic")
    dtype: Precision = setting("fp32", "Precision that the frozen base model is held in.")
