"""Losses and weights of one batch: ``(B, ...)`` in, ``(B,)`` out."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from trainer.diffusion.schedule import Objective


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, in float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def min_snr_weight(snr: Tensor, gamma: float, objective: Objective) -> Tensor:
    """``min(snr, gamma) / snr`` for epsilon, ``min(snr, gamma) / (snr + 1)`` for velocity. Source: arXiv 2303.09556."""
    clipped = snr.clamp_max(gamma)
    return clipped / (snr if objective == "epsilon" else snr + 1)


def draw_timesteps(count: int, total: int, generator: Generator) -> Tensor:
    """Stratified uniform timesteps: one in each of ``count`` equal parts of ``0 .. total-1``, in random order.

    Each timestep alone is uniform, as with independent draws; a batch covers the range, which steadies the loss.
    """
    offsets = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (offsets * total).long().clamp_max(total - 1)[torch.randperm(count, generator=generator)]


def draw_noise(like: Tensor, generator: Generator, offset: float = 0.0) -> Tensor:
    """Normal noise; ``offset`` adds a part that is constant over each channel's picture (noise offset)."""
    noise = torch.randn(like.shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(*like.shape[:2], 1, 1, generator=generator)
    return noise
