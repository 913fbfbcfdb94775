"""The noise schedule of a discrete diffusion model and its two objectives.

``x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise`` with ``a_t`` the cumulative product of ``1 - beta``;
shapes ``(B, C, h, w)``, ``t (B,)``.
Sources: DDPM arXiv 2006.11239; velocity: arXiv 2202.00512; zero terminal SNR: arXiv 2305.08891.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Objective = Literal["epsilon", "v_prediction"]


class Schedule:
    """Cumulative products ``a_t`` for ``t = 0 .. T-1`` and what the model predicts."""

    def __init__(self, alphas_cumprod: Tensor, objective: Objective) -> None:
        self.alphas_cumprod = alphas_cumprod.float()
        self.objective: Objective = objective

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def to(self, device: torch.device) -> Schedule:
        """The same schedule on another device."""
        return Schedule(self.alphas_cumprod.to(device), self.objective)

    def with_zero_terminal_snr(self) -> Schedule:
        """A schedule whose last step is pure noise: ``sqrt(a_t)`` shifted to end at 0 and stretched to start where it did.

        ``r_t -> (r_t - r_T) r_0 / (r_0 - r_T)`` with ``r_t = sqrt(a_t)``. Source: arXiv 2305.08891, algorithm 1.

        Raises:
            ValueError: the model predicts epsilon, which at pure noise is the input itself.
        """
        if self.objective == "epsilon":
            raise ValueError("zero terminal SNR needs the velocity objective")
        root = self.alphas_cumprod.double().sqrt()
        stretched = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return Schedule(stretched.square(), self.objective)

    def corrupt(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t``."""
        signal, sigma = self._coefficients(t)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict: ``noise``, or ``v = sqrt(a_t) noise - sqrt(1 - a_t) x0``."""
        if self.objective == "epsilon":
            return noise
        signal, sigma = self._coefficients(t)
        return signal * noise - sigma * x0

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ``a_t / (1 - a_t)``, ``(B,)``; 0 at the end of a schedule with zero terminal SNR."""
        a = self.alphas_cumprod[t]
        return a / (1 - a)

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return a.sqrt(), (1 - a).sqrt()
