"""Low rank with a number for each rank in between, ``s * up diag(gate) down``: what AdaLoRA and SoRA share."""

from __future__ import annotations

from torch import Tensor, nn

from morelora import ways
from morelora.adapter import RankOptions, check_rank
from morelora.as_lora import AsLoRA, without_zeros
from morelora.site import Site


class Gated(AsLoRA):
    """``W + s * up diag(gate) down``; a rank whose gate is zero is not written to a file."""

    def __init__(self, site: Site, options: RankOptions, up: Tensor, gate: Tensor, down: Tensor) -> None:
        super().__init__(site, options)
        check_rank(site, options.rank)
        self.up, self.gate, self.down = nn.Parameter(up), nn.Parameter(gate), nn.Parameter(down)

    def factors(self) -> tuple[Tensor, Tensor]:
        return ways.scaled(self.up * self.gate, self.options.scale), self.down

    def thin_factors(self) -> tuple[Tensor, Tensor]:
        return without_zeros(*self.factors(), self.gate)
