"""SoRA: ranks that fade out under a threshold.

Formula     ``W' = W + s * up diag(gate) down``, ``s = alpha / rank``.
Training    after each step of the optimiser at rate ``lr``: ``gate <- sign(gate) max(|gate| - lr sparsity, 0)``, the proximal
            step of ``sparsity * |gate|``, which leaves exact zeros. A gate that the loss needs comes back.
Start       ``up = 0``: the unchanged model. ``down`` uniform in ``+-1 / sqrt(fan in)``, ``gate = 1``.
            Also ``residual``, ``pissa`` and ``olora`` (``morelora/residual.py``): less ``up0 diag(gate) down0``, so that a rank
            without its gate leaves the unchanged model. Then the ranks are twice as many.
Rank        gates that are not zero; the others are not written.
Parameters  ``r (m + c + 1)``.
Cost        ``2 N r (m + c)`` more in the forward pass.
Export      plain LoRA, ``up diag(gate)`` and ``down``; exact.
Use         where the rank is to be found by one knob (``sparsity``) instead of a budget.
Source      SoRA arXiv 2311.11696, equations 7 to 9; there the gate's own step is plain gradient descent
            (``optimizer.name = "torch.optim.SGD"``).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora.factors import uniform
from morelora.gated import Gated
from morelora.procedure import Procedure, Stepped
from morelora.residual import StartOptions
from morelora.site import Site


def soft_threshold(x: Tensor, width: float | Tensor) -> Tensor:
    """``sign(x) max(|x| - width, 0)``."""
    return x.sign() * (x.abs() - width).clamp_min(0)


class Threshold(Procedure):
    """Draws every layer's gate towards zero after each step."""

    rewrites = True

    def stepped(self, step: Stepped) -> None:
        rates, share = step.rates(), 1.0 if step.is_made is None else step.is_made
        for adapter in self.adapters.values():
            width = rates[adapter.gate] * adapter.options.sparsity * share
            adapter.gate.copy_(soft_threshold(adapter.gate, width))


class SoRA(Gated):
    """``W + s * up diag(gate) down`` with a sparse gate; see the module's docstring."""

    name = "sora"
    procedure = Threshold

    class Options(StartOptions):
        """Settings of SoRA."""

        takes_weight = True
        sparsity: float = Field(
            1.0, ge=0, le=10000, description="How hard gates are drawn to zero: by this times the learning rate in each step."
        )

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        down = uniform((options.rank, site.c), site.c, generator)
        super().__init__(site, options, torch.zeros(site.m, options.rank), torch.ones(options.rank), down)

    def take(self, up: Tensor, down: Tensor) -> None:
        self.up.copy_(up)
        self.down.copy_(down)

    def zero_factors(self) -> list[nn.Parameter]:
        return [] if self.is_anchored else [self.up]
