"""Low rank with a number for each rank in between, ``s * up diag(gate) down``: what AdaLoRA and SoRA share."""

from __future__ import annotations

from torch import Tensor, nn

from morelora import ways
from morelora.adapter import check_rank
from morelora.anchored import Anchored
from morelora.as_lora import AsLoRA, without_zeros
from morelora.factors import less
from morelora.residual import StartOptions
from morelora.site import Site


class Gated(AsLoRA, Anchored):
    """``W + s * up diag(gate) down``; a rank whose gate is zero is not written to a file. Of a start other than its own the
    change is ``s * (up diag(gate) down - up0 diag(gate) down0)``: a rank without its gate leaves the unchanged model."""

    anchors = ("up", "down")

    def __init__(self, site: Site, options: StartOptions, up: Tensor, gate: Tensor, down: Tensor) -> None:
        super().__init__(site, options)
        check_rank(site, options.rank, times=1 if options.start == "default" else 2)
        self.up, self.gate, self.down = nn.Parameter(up), nn.Parameter(gate), nn.Parameter(down)

    def factors(self) -> tuple[Tensor, Tensor]:
        gate = ways.scaled(self.gate, self.options.scale)
        if not self.is_anchored:
            return self.up * gate, self.down
        up, down = self.at_start()
        up_now, down_now = less((self.up, self.down), (up, down))
        return up_now * gate.repeat(2), down_now

    def thin_factors(self) -> tuple[Tensor, Tensor]:
        return without_zeros(*self.factors(), self.gate.repeat(1 + self.is_anchored))
