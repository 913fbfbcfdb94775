"""Parts that rest off the device while the denoiser trains, and come back for previews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

HOME = torch.device("cpu")


@dataclass
class Resting:
    """Modules that only caching and previews need. Empty where nothing rests, as on a CPU, whose memory they share."""

    device: torch.device = HOME
    modules: list[nn.Module] = field(default_factory=list)

    def rest(self) -> None:
        """Off the device."""
        self._move(HOME)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Inside, everything is on the device."""
        self._move(self.device)
        try:
            yield
        finally:
            self.rest()

    def _move(self, device: torch.device) -> None:
        for module in self.modules:
            module.to(device)
        if self.modules and device == HOME and self.device.type == "cuda":
            torch.cuda.empty_cache()
