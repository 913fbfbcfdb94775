"""Low-rank adapters whose file is a plain LoRA of the same change, which every client reads."""

from __future__ import annotations

import torch
from torch import Tensor

from morelora.adapter import Factored, Tensors
from morelora.site import Site


class AsLoRA(Factored):
    """A factored adapter that is written as ``lora_up``, ``lora_down`` and ``alpha``; read back it is a LoRA."""

    leaves = frozenset()
    filed_as = "lora"

    @property
    def file_rank(self) -> int:
        return self.thin_factors()[0].shape[1]

    def thin_factors(self) -> tuple[Tensor, Tensor]:
        return self.factors()

    def tensors(self, alpha: float) -> Tensors:
        return plain_tensors(self.site, *self.thin_factors(), alpha)


def plain_tensors(site: Site, up: Tensor, down: Tensor, alpha: float, scale: float = 1.0) -> Tensors:
    """``scale * up (m, R) @ down (R, c)`` as a plain LoRA, which readers take as ``alpha / R * lora_up @ lora_down``."""
    up = up * (scale * up.shape[1] / alpha)
    return {
        "lora_up.weight": up[:, :, None, None] if site.is_conv else up,
        "lora_down.weight": site.kernel_of(down),
        "alpha": torch.tensor(alpha),
    }


def without_zeros(up: Tensor, down: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The factors without the ranks whose ``gate`` is zero. Of a layer that has none left one stays: no file holds rank 0."""
    kept = gate.detach().nonzero().flatten()
    kept = kept if len(kept) else torch.zeros(1, dtype=torch.long, device=gate.device)
    return up[:, kept], down[kept]
