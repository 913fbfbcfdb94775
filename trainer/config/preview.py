"""Settings of the pictures made during a run."""

from __future__ import annotations

from trainer.config.base import Section, setting
from trainer.trigger import PLACE


class PreviewConfig(Section):
    """Pictures made during training at fixed prompts and seeds."""

    every: int = setting(0, "Steps between previews; 0 means only base and end.", unit="steps", ge=0)
    prompts: tuple[str, ...] = setting(
        (), f"Prompts; {PLACE} stands for the trigger word. Empty: a few of the captions.", "basic"
    )
    negative: str = setting("", "What pictures are not to show.")
    steps: int = setting(25, "Steps in which a picture is drawn.", unit="steps", ge=1, le=1000)
    guidance: float = setting(7.0, "How closely pictures follow the prompt (classifier-free); 1: no guidance.", ge=1, le=50)
    seed: int = setting(1234, "Seed of the first prompt's noise; the next prompts count on.", ge=0, lt=2**32)
    strength: float = setting(1.0, "Strength of the adapter in previews.", ge=0, le=2)
    width: int | None = setting(None, "Width; empty means data.resolution.", unit="pixels", ge=32, le=4096)
    height: int | None = setting(None, "Height; empty means data.resolution.", unit="pixels", ge=32, le=4096)
