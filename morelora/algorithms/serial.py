"""Serial adapters: a small network after a layer.

Formula     ``h' = h + f(h D + d) U + u`` for the layer's output ``h``, with a nonlinear ``f``; in a convolution at each position.
Start       ``U = 0``, ``u = 0``: the unchanged model. ``D`` uniform (Kaiming), ``d = 0``.
Parameters  ``2 m r + r + m``; the paper trains norms beside it: a rule with ``algorithm = "norm"``.
Cost        ``4 N m r``.
Export      it is no change of weights: it cannot be merged, and no web UI loads it. The sidecar form holds
            ``serial_down (r, m)``, ``serial_down_b (r)``, ``serial_up (m, r)``,
            ``serial_up_b (m)`` and the function, for ``morelora.load``.
Use         pipelines in Python alone, where a nonlinear change is wanted.
Source      Parameter-Efficient Transfer Learning for NLP, arXiv 1902.00751.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need, need_any
from morelora.errors import AdapterError
from morelora.factors import uniform
from morelora.site import Site

FUNCTIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}
"""By name; a file holds the number in this order."""


class Serial(Adapter):
    """``h + f(h D + d) U + u``; see the module's docstring."""

    name = "serial"
    leaves = frozenset({"serial_down"})
    decomposes = False
    undecomposed = "which is no change of the weight"
    mergeable = False
    limits_norm = False
    places = r"attn\d\.to_out\.0$|ff\.net\.2$|self_attn\.out_proj$|mlp\.fc2$|conv2$"
    notice = (
        "serial adapters are no change of the weights: they cannot be merged, and no web UI loads their file; "
        "morelora.load puts it into a pipeline"
    )

    class Options(adapter.Options):
        """Settings of serial adapters."""

        rank: int = Field(
            8,
            ge=1,
            le=4096,
            description="Width of the small network: more, more capacity and a larger file.",
            json_schema_extra={"level": "basic"},
        )
        activation: Literal["gelu", "relu", "silu", "tanh"] = Field("gelu", description="The function between its two layers.")

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        self.down = nn.Parameter(uniform((options.rank, site.m), site.m, generator))
        self.down_b = nn.Parameter(torch.zeros(options.rank))
        self.up = nn.Parameter(torch.zeros(site.m, options.rank))
        self.up_b = nn.Parameter(torch.zeros(site.m))

    def delta(self, weight: Tensor) -> Tensor:
        raise AdapterError("a serial adapter is no change of the weight")

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        h, site = base(x), self.site
        dtype = ways.compute_dtype(h)
        hidden = site.mix(h.to(dtype), self.down.to(dtype))
        hidden = FUNCTIONS[self.options.activation](hidden + site.along_output(self.down_b, hidden))
        change = site.mix(hidden, self.up.to(dtype))
        return h + ways.scaled(change + site.along_output(self.up_b, change), strength)

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.up]

    def tensors(self, alpha: float) -> Tensors:
        number = torch.tensor(float(list(FUNCTIONS).index(self.options.activation)))
        return {f"serial_{name}": parameter for name, parameter in self.named_parameters()} | {"serial_function": number}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Serial:
        number = float(need_any(tensors, "serial_function"))
        if number not in range(len(FUNCTIONS)):
            raise AdapterError(f"serial_function is {number:g}, which no function here has: the file is from a later version")
        rank = need_any(tensors, "serial_down").shape[0]
        self = cls(site, cls.Options(rank=rank, activation=list(FUNCTIONS)[int(number)]))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(need(tensors, f"serial_{name}", tuple(parameter.shape)))
        return self
