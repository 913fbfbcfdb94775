"""DyLoRA: one training for every rank.

Formula     ``W' = W + s(b) * up[:, :b] @ down[:b]`` at rank ``b``, with the one rule ``s(b) = alpha / b`` (``rs``: ``/ sqrt(b)``)
            in training and in files.
Training    each micro step draws one ``b`` out of ``unit, 2 unit, ... rank`` for all layers, so that the first ranks learn
            what matters most. ``normal``: the first ``b`` ranks learn; ``frozen``: only the last ``unit`` of them.
Start       ``up = 0``: the unchanged model. ``down`` uniform in ``+-1 / sqrt(fan in)``.
            Also ``residual``, ``pissa`` and ``olora`` (``morelora/residual.py``): at rank ``b`` less the first ``b`` ranks of
            the start. Then the ranks are twice as many.
Rank        ``r``, or after the training the lowest whose loss is near the best one (``search``).
Parameters  ``r (m + c)``.
Cost        ``2 N b (m + c)`` more in the forward pass.
Export      plain LoRA of rank ``b``, scale ``s(b)``; exact.
Use         one training for a file of any rank: the rank is chosen when it is over.
Source      DyLoRA arXiv 2210.07558. kohya's scale is ``alpha / sqrt(r b)``; LyCORIS trains with ``alpha`` over the number of
            blocks and exports ``alpha / r``, which is another change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Adapter, check_rank
from morelora.anchored import Anchored
from morelora.as_lora import AsLoRA
from morelora.factors import less, uniform
from morelora.procedure import Procedure, Search
from morelora.residual import StartOptions
from morelora.site import Site


class DrawnRank(Procedure):
    """Draws the rank of each micro step, and offers every rank to a search. A choice counts units of the largest layer."""

    adapters: dict[str, DyLoRA]

    def __init__(self, adapters: Mapping[str, Adapter], steps: int) -> None:
        super().__init__(adapters, steps)
        self.options = self.shared("unit", "mode", "search", "search_tolerance")
        self.units = max(adapter.options.rank for adapter in self.adapters.values()) // self.options.unit
        if self.options.mode == "frozen":  # until a block comes a second time, ``down`` meets an ``up`` of zero
            self.patience = self.units + 1

    def batch(self, t: Tensor, total: int) -> None:
        drawn = int(torch.randint(1, self.units + 1, ()))  # on the CPU: no device is waited for
        for adapter in self.adapters.values():
            adapter.drawn = self._rank(adapter, drawn)

    @property
    def search(self) -> Search | None:
        if self.options.search == "off":
            return None
        names = {units: f"rank {units * self.options.unit}" for units in range(1, self.units + 1)}
        return Search(self.options.search, self.options.search_tolerance, names)

    def choose(self, choice: int) -> None:
        for adapter in self.adapters.values():
            adapter.kept = self._rank(adapter, choice)

    def _rank(self, adapter: DyLoRA, units: int) -> int:
        """The same share of each layer's rank, in whole units."""
        return self.options.unit * -(-units * (adapter.options.rank // self.options.unit) // self.units)


class DyLoRA(AsLoRA, Anchored):
    """``W + s(b) * up[:, :b] @ down[:b]``; see the module's docstring."""

    name = "dylora"
    procedure = DrawnRank
    decomposes = False
    undecomposed = "whose rank is another in every step"
    anchors = ("up", "down")

    class Options(StartOptions):
        """Settings of DyLoRA."""

        takes_weight = True
        unit: int = Field(1, ge=1, description="Ranks are drawn in multiples of this; rank must be one.")
        mode: Literal["normal", "frozen"] = Field(
            "normal", description="What learns at the drawn rank: normal, all ranks up to it; frozen, the last unit of them."
        )
        search: Literal["off", "held_out", "training"] = Field(
            "off",
            description="After the last step keep the lowest rank whose loss is near the best one: on held_out pictures "
            "(validation.count), or on the training's own batches; off keeps the whole rank.",
        )
        search_tolerance: float = Field(0.01, ge=0, le=1, description="Share by which that loss may lie above the best one.")

        @model_validator(mode="after")
        def _has_effect(self) -> DyLoRA.Options:
            if self.rank % self.unit:
                raise ValueError(f"rank ({self.rank}) must be a multiple of unit ({self.unit})")
            if self.search == "off" and "search_tolerance" in self.model_fields_set:
                raise ValueError("search_tolerance has no effect with search = 'off'")
            return self

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        check_rank(site, options.rank, times=1 if options.start == "default" else 2)
        self.up = nn.Parameter(torch.zeros(site.m, options.rank))
        self.down = nn.Parameter(uniform((options.rank, site.c), site.c, generator))
        self.drawn: int | None = None
        self.kept = options.rank

    def zero_factors(self) -> list[nn.Parameter]:
        return [] if self.is_anchored else [self.up]

    def take(self, up: Tensor, down: Tensor) -> None:
        self.up.copy_(up)
        self.down.copy_(down)

    def factors(self) -> tuple[Tensor, Tensor]:
        """At the rank that is kept."""
        return self._at(self.kept, self.up[:, : self.kept], self.down[: self.kept])

    def _at(self, rank: int, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of so many ranks, scale included, less those ranks of the start."""
        if self.is_anchored:
            up0, down0 = self.at_start()
            up, down = less((up, down), (up0[:, :rank], down0[:rank]))
        return ways.scaled(up, self.options.scale_at(rank)), down

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        if self.drawn is None or not self.training:
            return super().parts(strength)
        rank, resting = self.drawn, self.drawn - self.options.unit if self.options.mode == "frozen" else 0
        up = torch.cat((self.up[:, :resting].detach(), self.up[:, resting:rank]), 1)
        down = torch.cat((self.down[:resting].detach(), self.down[resting:rank]))
        up, down = self._at(rank, up, down)
        return ways.scaled(up, strength), down
