"""Low rank with a number for each output and for each rank, ``diag(v) up diag(u) down``: what VeRA and Tied-LoRA share."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from morelora import ways
from morelora.adapter import FactorOptions, check_rank
from morelora.as_lora import AsLoRA
from morelora.site import Site


class Vectored(AsLoRA):
    """``W + diag(v) up diag(u) down``, ``v (m,)``, ``up (m, r)``, ``u (r,)``, ``down (r, c)``; layers share the factors."""

    def __init__(self, site: Site, options: FactorOptions, start: Mapping[str, Tensor], trained: Collection[str]) -> None:
        """``start`` has the four tensors by name, of which ``trained`` train and the others stay."""
        super().__init__(site, options)
        check_rank(site, options.rank)
        self.way = ways.LowRank(site, keeps_input="down" in trained)
        for name, tensor in start.items():
            self.hold(name, tensor, trains=name in trained)

    @property
    def shared(self) -> tuple[str, ...]:
        return "up", "down"

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.v[:, None] * self.up * self.u, self.down

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.v]

    def scaled_factors(self) -> list[nn.Parameter]:
        """The layer's own alone."""
        return [self.v]
