"""Looking at a model in the middle of its training without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainer import rng


@contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Inside, the models are in evaluation mode and nothing has a gradient.

    Afterwards every module is in its own mode again, and the global random numbers go on as if nothing had been drawn.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with rng.preserved(), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
