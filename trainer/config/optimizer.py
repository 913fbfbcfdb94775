"""Settings of the optimiser and of the learning rate."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class OptimizerConfig(Section):
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "prodigy"] = setting(
        "adamw", "Optimiser: adamw, or prodigy, which finds the rate itself (lr = 1).", "basic"
    )
    lr: float = setting(1e-4, "Learning rate of the UNet's adapters.", "basic", gt=0, le=10)
    text_encoder_lr: float | None = setting(None, "Learning rate of the text encoder's adapters; empty means lr.", gt=0, le=10)
    weight_decay: float = setting(0.01, "Decoupled weight decay.", ge=0, le=1)
    beta1: float = setting(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = setting(0.99, "Decay of the second moment.", ge=0, lt=1)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "Course of the learning rate after warm-up.")
    warmup: int = setting(0, "Steps over which the learning rate rises from zero.", unit="steps", ge=0)
    clip_norm: float = setting(1.0, "Largest norm of the whole gradient; 0 means no clipping.", ge=0)
