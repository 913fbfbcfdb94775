"""Tied-LoRA: factors that layers share, and two vectors for each layer; any of the four may be frozen.

Formula     ``W' = W + diag(v) up diag(u) down``, ``v (m,)``, ``up (m, r)``, ``u (r,)``, ``down (r, c)``; the paper's v, B, u, A.
Shared      ``up`` and ``down``, or one of them: one for all layers of one shape and of the same settings in a model.
Frozen      what does not train stays as the run's seed gives it, and no checkpoint has it. With u and v frozen it is LoRA with
            factors that layers share, with up and down frozen VeRA.
Start       the first of up, v, u, down that trains is zero: the unchanged model. Other vectors are 1, other factors uniform in
            ``+-1 / sqrt(fan in)``.
Parameters  ``r (m + c)`` once for all layers of a shape, and ``m + r`` for each.
Cost        ``2 N r (m + c)`` more in the forward pass.
Export      plain LoRA of rank ``r``, ``diag(v) up diag(u)`` and ``down``; exact, and as large as a LoRA of this rank.
Use         LoRA with a fifth of its numbers on a model of many layers alike; at a higher rank than LoRA's.
Source      Tied-LoRA arXiv 2311.09578.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, nn

from morelora.adapter import FactorOptions
from morelora.factors import uniform
from morelora.site import Site
from morelora.vectored import Vectored


class Tied(Vectored):
    """``W + diag(v) up diag(u) down`` with shared factors; see the module's docstring."""

    name = "tied"

    class Options(FactorOptions):
        """Settings of Tied-LoRA."""

        tie: Literal["both", "up", "down"] = Field("both", description="Which of the factors layers of one shape share.")
        freeze_up: bool = Field(False, description="The up factor keeps its random start.")
        freeze_down: bool = Field(False, description="The down factor keeps its random start.")
        freeze_u: bool = Field(False, description="The ranks' vector stays 1.")
        freeze_v: bool = Field(False, description="The outputs' vector stays 1.")

        @property
        def trained(self) -> tuple[str, ...]:
            """Names of what trains; the first one starts at zero."""
            frozen = {"up": self.freeze_up, "v": self.freeze_v, "u": self.freeze_u, "down": self.freeze_down}
            return tuple(name for name, is_frozen in frozen.items() if not is_frozen)

        @property
        def own(self) -> tuple[str, ...]:
            """Of what trains, that which is a layer's own and scales its change."""
            return tuple(name for name in self.trained if name in ("u", "v") or self.tie not in ("both", name))

        @property
        def is_homogeneous(self) -> bool:
            return bool(self.own)

        @model_validator(mode="after")
        def _has_effect(self) -> Tied.Options:
            if not self.trained:
                raise ValueError("freeze_up, freeze_down, freeze_u and freeze_v together leave nothing to train: unset one")
            return self

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        rank = options.rank
        start = {"down": uniform((rank, site.c), site.c, generator), "up": uniform((site.m, rank), rank, generator)}
        start |= {"u": torch.ones(rank), "v": torch.ones(site.m)}
        start[options.trained[0]].zero_()
        super().__init__(site, options, start, options.trained)

    @property
    def shared(self) -> tuple[str, ...]:
        return super().shared if self.options.tie == "both" else (self.options.tie,)

    def zero_factors(self) -> list[nn.Parameter]:
        first, *others = self.options.trained
        return [getattr(self, first)] if others else []

    def scaled_factors(self) -> list[nn.Parameter]:
        return [getattr(self, self.options.own[0])]
