"""What conditions the denoiser beside noise and time, in the words that data and models share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

States = Tensor | tuple[Tensor, ...]
"""What text encoders give for captions, batch first: hidden states, or hidden states and more (SDXL: the pooled text)."""
Size = tuple[int, int]
"""Width, height in pixels; as a place: left, top."""


@dataclass(frozen=True)
class Frames:
    """Where each picture of a batch was cut from; SDXL is conditioned on it, other families ignore it."""

    original: list[Size]
    """Size before the resize."""
    crops: list[Size]
    """Left, top of the bucket in the resized picture."""
    target: Size
    """The bucket, which all pictures of a batch share."""
