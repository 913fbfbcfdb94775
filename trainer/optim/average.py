"""Averages that are exported in the place of the weights that train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Ema:
    """``average <- decay average + (1 - decay) value``, with ``decay`` rising as ``(1 + step) / (10 + step)`` at first."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.average = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, the parameters hold their averages; afterwards their own bits again."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and values; twice is the identity."""
        for average, parameter in zip(self.average, self.parameters, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def state(self) -> dict[str, Tensor]:
        return {str(i): tensor for i, tensor in enumerate(self.average)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for i, average in enumerate(self.average):
            average.copy_(state[str(i)])


@contextmanager
def evaluated(optimizer: Optimizer) -> Iterator[None]:
    """Inside, the parameters hold what the optimiser gives out, if that is something else than what it trains.

    Schedule-free optimisers (arXiv 2405.15682) train at ``y = (1 - beta1) z + beta1 x`` and give out the average ``x``.
    Their own way back from ``x`` to ``y`` rounds; here ``y`` is kept, so that looking never changes the training.
    """
    if not (hasattr(optimizer, "eval") and hasattr(optimizer, "train")):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            torch._foreach_copy_(parameters, held)
