"""Settings of the optimiser and of the learning rate."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from pydantic import field_validator

from trainer.config.base import Section, setting

OPTIMIZER_NAMES = ("adamw", "adamw8bit", "paged_adamw8bit", "adafactor", "lion", "prodigy", "schedule_free", "came")


class OptimizerConfig(Section):
    """Optimiser and learning-rate schedule."""

    name: str = setting(
        "adamw",
        "Optimiser, or any class as package.module.Class. adamw8bit and paged_adamw8bit need the package bitsandbytes; "
        "prodigy finds the rate itself (lr = 1); schedule_free needs schedule = 'constant'.",
    )
    arguments: dict[str, Any] = setting({}, "More arguments of the optimiser's class, such as d_coef = 2 for prodigy.")
    lr: float = setting(1e-4, "Learning rate of the UNet's adapters.", gt=0, le=10)
    text_encoder_lr: float | None = setting(None, "Learning rate of the text encoder's adapters; empty means lr.", gt=0, le=10)
    text_encoder_2_lr: float | None = setting(
        None, "Learning rate of the second text encoder's adapters (SDXL); empty means text_encoder_lr.", gt=0, le=10
    )
    lora_plus_ratio: float | None = setting(
        None, "LoRA+: the factors that start at zero learn at this many times the rate; 16 is the paper's.", ge=1, le=1000
    )
    galore_rank: int | None = setting(
        None, "GaLore: rank of the space that AdamW works in, for layers trained whole (algorithm full).", ge=1, le=4096
    )
    galore_interval: int = setting(200, "Steps after which GaLore chooses its space again.", unit="steps", ge=1)
    galore_scale: float = setting(0.25, "GaLore's updates are multiplied by this.", gt=0, le=10)
    weight_decay: float | None = setting(None, "Decoupled weight decay; empty means 0.01.", ge=0, le=1)
    beta1: float | None = setting(None, "Decay of the first moment; empty means 0.9.", ge=0, lt=1)
    beta2: float | None = setting(
        None, "Decay of the second moment; empty means 0.99 (0.999 for schedule_free and came).", ge=0, lt=1
    )
    schedule: Literal["constant", "linear", "cosine", "cosine_restarts", "polynomial", "rex"] = setting(
        "cosine", "Course of the learning rate after warm-up."
    )
    cycles: int = setting(3, "Falls of the cosine_restarts schedule.", ge=1, le=100)
    power: float = setting(2.0, "Exponent of the polynomial schedule.", gt=0, le=10)
    min_lr_ratio: float = setting(0.0, "The schedule ends at this share of the learning rate.", ge=0, le=1)
    warmup: float = setting(
        0, "Steps over which the learning rate rises from zero, or, below 1, their share of all steps.", unit="steps", ge=0
    )
    clip_norm: float = setting(1.0, "Largest norm of the whole gradient; 0 means no clipping.", ge=0)

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value in OPTIMIZER_NAMES or "." in value.strip("."):
            return value
        near = difflib.get_close_matches(value, OPTIMIZER_NAMES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(OPTIMIZER_NAMES)
        raise ValueError(f"{value!r} is not an optimiser: choose from {known}, or write package.module.Class{hint}")

    @field_validator("warmup")
    @classmethod
    def _is_whole_or_share(cls, value: float) -> float:
        if value >= 1 and value % 1:
            raise ValueError(f"{value:g} is neither a whole number of steps nor a share below 1")
        return value
