"""The effective strength ``lr * sqrt(scale)``: one number that is alike where an adapter learns alike, and its usual range.

With ``scale = alpha / rank`` the number stays the same when alpha and rate are traded for each other (LyCORIS, arXiv
2309.14859). Between algorithms it is only a first guess. It is meant for AdamW: other optimisers take other rates.
"""

from __future__ import annotations

import math

Range = tuple[float, float]

ADAMW = ("adamw", "adamw8bit", "paged_adamw8bit")
USUAL: dict[str, Range] = {"lora": (3e-5, 5e-4), "loha": (3e-5, 5e-4), "lokr": (3e-5, 5e-4), "full": (1e-6, 1e-4)}
"""Of the UNet's adapters, from recipes for SD 1.5, SD 2.1 and SDXL; a full difference learns as fine-tuning does."""
VECTORS = ("bitfit", "ssf", "norm", "ia3", "vera")
"""Algorithms that train vectors alone, at rates of their own."""
DECOMPOSED = 0.5
"""Weight decomposition takes about half the rate."""
TEXT_ENCODER: Range = (0.0, 2e-4)
SMALL_BASE: Range = (3e-4, 1e-2)
"""Of a UNet much narrower than Stable Diffusion's, such as the one that ships."""
NARROW = 320
"""Width of the first block of every full-size Stable Diffusion UNet."""


def effective_strength(optimizer: str, lr: float, scale: float) -> float | None:
    """``lr * sqrt(scale)``; None for an optimiser whose rates do not compare."""
    return lr * math.sqrt(scale) if optimizer in ADAMW else None


def usual_range(algorithm: str, component: str, decomposed: bool, width: int) -> Range | None:
    """Between what values recipes lie; None where none are known.

    Args:
        algorithm: by its name in the registry.
        component: ``unet``, ``text_encoder``, ``text_encoder_2``.
        decomposed: whether weight decomposition stands around it.
        width: channels of the UNet's first block.
    """
    if algorithm in VECTORS:
        return None
    if width < NARROW:
        return (SMALL_BASE[0] if component == "unet" else 0.0, SMALL_BASE[1])
    if algorithm not in USUAL:
        return None
    low, high = USUAL[algorithm] if component == "unet" else (TEXT_ENCODER[0], min(TEXT_ENCODER[1], USUAL[algorithm][1]))
    return (low * DECOMPOSED, high * DECOMPOSED) if decomposed else (low, high)
