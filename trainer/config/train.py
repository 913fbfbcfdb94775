"""Settings of the training itself."""

from __future__ import annotations

from trainer.config.base import Precision, Section, setting


class TrainConfig(Section):
    """The training itself."""

    steps: int = setting(
        1000, "Optimiser steps; 0 means by the number of pictures: steps_per_picture for each.", "basic", "steps", ge=0
    )
    steps_per_picture: int = setting(80, "Steps for each picture where train.steps = 0; 60 to 100 are usual.", ge=1, le=10000)
    steps_min: int = setting(800, "Fewest steps where train.steps = 0.", unit="steps", ge=1)
    steps_max: int = setting(2500, "Most steps where train.steps = 0.", unit="steps", ge=1)
    init_from: str | None = setting(
        None, "Adapter file to start from, of any program, with the same layers, algorithm and rank; empty: a new adapter."
    )
    batch_size: int = setting(1, "Pictures in one micro step on one device.", ge=1, le=1024)
    accumulation: int = setting(1, "Micro steps whose gradients make one step.", ge=1, le=1024)
    seed: int = setting(42, "Seed of everything random.", ge=0, lt=2**32)
    unet: bool = setting(True, "Train adapters in the UNet.")
    text_encoder: bool = setting(True, "Train adapters in the text encoder.")
    precision: Precision = setting("fp32", "Mixed precision of the computation; the adapters stay fp32.")
    gradient_checkpointing: bool = setting(False, "Compute activations again in the backward pass: less memory, more time.")
    ema: float = setting(0.0, "Decay of an average of the adapter that is exported in its place; 0 means off.", ge=0, lt=1)
