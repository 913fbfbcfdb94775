"""Noise and timesteps of a batch, drawn from the batch's own generator and from nothing else."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from trainer.diffusion.density import Density


def draw_timesteps(count: int, density: Density, generator: Generator) -> Tensor:
    """Stratified timesteps ``(count,)``: one from each of ``count`` equally likely parts of the density, in random order.

    Each timestep alone follows the density, as with independent draws; a batch covers the range, which steadies the loss.
    """
    shares = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    drawn = torch.tensor([density.timestep(u) for u in shares.tolist()])
    return drawn[torch.randperm(count, generator=generator)]


def draw_noise(like: Tensor, generator: Generator, offset: float = 0.0, pyramid: tuple[int, float] = (0, 1.0)) -> Tensor:
    """Normal noise of the shape ``(B, C, h, w)``.

    Args:
        offset: adds a part that is constant over each channel's picture (noise offset).
        pyramid: levels and discount of multi-resolution noise, see ``add_pyramid``; 0 levels for none.
    """
    noise = torch.randn(like.shape, generator=generator)
    levels, discount = pyramid
    if levels:
        noise = torch.stack([add_pyramid(picture, levels, discount, generator) for picture in noise])
    if offset:
        noise = noise + offset * torch.randn(*like.shape[:2], 1, 1, generator=generator)
    return noise


def add_pyramid(noise: Tensor, levels: int, discount: float, generator: Generator) -> Tensor:
    """Multi-resolution noise of one picture ``(C, h, w)``: ``noise + sum_i discount^i enlarge(noise_i)``, ``i = 0, 1 ...``.

    ``noise_i`` is ``r^i`` times smaller, ``r`` drawn from 2 to 4 for each level, and is enlarged bilinearly; the levels end where
    a side is 1. The sum is divided by its standard deviation. Level 0 has full size, as in the original, so that settings
    mean what they mean in other trainers. Source: "multi-resolution noise" of J. Whitaker (2023), kohya's sd-scripts.
    """
    height, width = noise.shape[1:]
    for level in range(levels):
        shrink = (2 + 2 * torch.rand((), generator=generator).item()) ** level
        size = max(1, int(height / shrink)), max(1, int(width / shrink))
        coarse = torch.randn(1, len(noise), *size, generator=generator)
        noise = noise + discount**level * interpolate(coarse, (height, width), mode="bilinear")[0]
        if 1 in size:
            break
    return noise / noise.std()
