"""AdaLoRA: ranks that move to the layers where they matter.

Formula     ``W' = W + s * up diag(gate) down``, ``s = alpha / rank`` of the first rank.
Training    a budget shrinks from ``rank`` to ``final rank`` a layer on average, and the most important ranks of all layers
            share it; a penalty keeps the columns of ``up`` and the rows of ``down`` orthogonal, as singular vectors are.
            Both are in ``morelora/budget.py``.
Start       ``up, down ~ N(0, 0.02)``, ``gate = 0``: the unchanged model. Only ``gate`` has a gradient in the first step.
            Also ``residual``, ``pissa`` and ``olora`` (``morelora/residual.py``): less ``up0 diag(gate) down0``, so that a rank
            without its gate leaves the unchanged model; of the weight's factors the gate has the lengths. Then the ranks are
            twice as many.
Rank        what the budget leaves; ranks whose gate is zero are not written.
Parameters  ``r (m + c + 1)``, of the first rank.
Cost        ``2 N r (m + c)`` more in the forward pass, of the first rank; ``2 r^2 (m + c)`` for the penalty.
Export      plain LoRA, ``up diag(gate)`` and ``down``; exact.
Use         where it is not known which layers need rank: they share a budget, which shrinks. Long trainings, since it takes steps
            to tell.
Source      AdaLoRA arXiv 2303.10512.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from morelora.budget import Budget
from morelora.gated import Gated
from morelora.residual import StartOptions
from morelora.site import Site

SPREAD = 0.02


class AdaLoRA(Gated):
    """``W + s * up diag(gate) down`` under a budget; see the module's docstring."""

    name = "adalora"
    procedure = Budget

    class Options(StartOptions):
        """Settings of AdaLoRA."""

        takes_weight = True
        target_rank: int | None = Field(
            None, ge=1, le=4096, description="Rank that a layer has on average at the end; empty means half of the rank."
        )
        prune_from: float = Field(0.1, ge=0, lt=1, description="Share of the steps after which ranks begin to be taken away.")
        prune_until: float = Field(0.6, gt=0, le=1, description="Share of the steps after which the ranks stand.")
        prune_every: int = Field(
            10, ge=1, description="Steps between two allocations.", json_schema_extra={"unit": "steps"}
        )  # fmt: skip
        importance: Literal["smoothed", "sensitivity", "magnitude"] = Field(
            "smoothed",
            description="What makes a rank important: smoothed, the paper's averages of |weight x gradient| and of its spread; "
            "sensitivity, |weight x gradient| of the last step; magnitude, the size of its singular value.",
        )
        beta1: float = Field(
            0.85, ge=0, lt=1, description="Decay of the average of |weight x gradient|, for smoothed importance."
        )
        beta2: float = Field(0.85, ge=0, lt=1, description="Decay of the average of its spread, for smoothed importance.")
        orthogonality: float = Field(0.1, ge=0, description="Weight in the loss of how far the factors are from orthogonal.")

        @property
        def final_rank(self) -> int:
            """Share of this layer in the last budget."""
            return max(1, self.rank // 2) if self.target_rank is None else self.target_rank

        @model_validator(mode="after")
        def _has_effect(self) -> AdaLoRA.Options:
            if self.final_rank > self.rank:
                raise ValueError(f"target_rank ({self.final_rank}) is above rank ({self.rank}): ranks are only taken away")
            if self.prune_from >= self.prune_until:
                raise ValueError(f"prune_from ({self.prune_from:g}) must be below prune_until ({self.prune_until:g})")
            if self.importance != "smoothed" and self.model_fields_set & {"beta1", "beta2"}:
                raise ValueError("beta1 and beta2 have no effect unless importance = 'smoothed'")
            return self

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        up, down = (
            SPREAD * torch.randn(shape, generator=generator) for shape in ((site.m, options.rank), (options.rank, site.c))
        )
        super().__init__(site, options, up, torch.zeros(options.rank), down)

    def take(self, up: Tensor, down: Tensor) -> None:
        """With columns and rows of length 1, and their lengths in the gate."""
        lengths = up.norm(dim=0), down.norm(dim=1)
        self.up.copy_(up / lengths[0])
        self.gate.copy_(lengths[0] * lengths[1])
        self.down.copy_(down / lengths[1][:, None])

    def zero_factors(self) -> list[nn.Parameter]:
        return [] if self.is_anchored else [self.gate]
