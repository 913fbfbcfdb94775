"""Weights of timesteps by their signal-to-noise ratio: ``(B,)`` in, ``(B,)`` out.

An error of an epsilon prediction and the velocity's error that means the same picture are tied by
``|d_epsilon|^2 = snr / (snr + 1) |d_v|^2``. Each weight's velocity form is its epsilon form times that factor, so that
both objectives train the same weighted loss. All are finite at zero terminal SNR, where ``snr = 0``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.diffusion.schedule import Objective


def min_snr_weight(snr: Tensor, gamma: float, objective: Objective) -> Tensor:
    """``min(snr, gamma) / snr`` for epsilon (1 at ``snr = 0``), ``min(snr, gamma) / (snr + 1)`` for velocity.

    Source: arXiv 2303.09556.
    """
    if objective == "epsilon":
        return (gamma / snr).clamp_max(1.0)
    return snr.clamp_max(gamma) / (snr + 1)


def debiased_weight(snr: Tensor, objective: Objective) -> Tensor:
    """``1 / sqrt(snr)`` for epsilon, ``sqrt(snr) / (snr + 1)`` for velocity.

    At ``snr = 0`` an epsilon prediction says nothing of the picture, and its weight is 0 rather than infinite.
    For velocity kohya's sd-scripts take ``1 / (snr + 1)`` and OneTrainer ``1 / sqrt(snr + 1)``, which are other losses than
    the paper's. Source: arXiv 2310.08442.
    """
    if objective == "epsilon":
        return torch.where(snr > 0, snr.rsqrt(), 0.0)
    return snr.sqrt() / (snr + 1)
