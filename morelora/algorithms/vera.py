"""VeRA: two vectors for each layer, around random factors that layers share and that never train.

Formula     ``W' = W + diag(v) up diag(u) down``, ``v (m,)``, ``up (m, r)``, ``u (r,)``, ``down (r, c)``; the paper's b, B, d, A.
Start       ``up, down`` uniform in ``+-sqrt(6 / fan in)`` (Kaiming's for ReLU), from the run's seed, which no checkpoint holds;
            one pair for all layers of one shape and of the same settings in a model. ``u = d initial``, ``v = 0``: the unchanged
            model.
Rank        ``r``, which costs one number each: it may be far above LoRA's.
Parameters  ``r + m``.
Cost        ``2 N r (m + c)`` more in the forward pass; ``N r`` numbers are kept for backward instead of the input's ``N n``.
Export      plain LoRA of rank ``r``, ``diag(v) up diag(u)`` and ``down``; exact, and as large as a LoRA of this rank.
Use         where the trained numbers themselves are to be few, as for many adapters of one seed; at fifty times LoRA's rate.
Source      VeRA arXiv 2310.11454. peft cuts the factors of all shapes out of one pair of the largest.
"""

from __future__ import annotations

from math import sqrt

import torch
from pydantic import Field
from torch import Generator

from morelora.adapter import FactorOptions
from morelora.factors import uniform
from morelora.site import Site
from morelora.vectored import Vectored

KAIMING = sqrt(6.0)


class VeRA(Vectored):
    """``W + diag(v) up diag(u) down`` of which the vectors train; see the module's docstring."""

    name = "vera"
    notice = (
        "VeRA trains few numbers, but its file is a plain LoRA of the whole adapter.rank: export.format = 'svd' writes a "
        "smaller one that is not exact, and says by how much"
    )

    class Options(FactorOptions):
        """Settings of VeRA."""

        rank: int = Field(
            64,
            ge=1,
            le=4096,
            description="Rank of the random factors: one trained number each, and a larger file.",
            json_schema_extra={"level": "basic"},
        )
        d_initial: float = Field(0.1, gt=0, le=10, description="Value that the ranks' vector begins with.")

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        down = KAIMING * uniform((options.rank, site.c), site.c, generator)
        up = KAIMING * uniform((site.m, options.rank), options.rank, generator)
        vectors = {"u": torch.full((options.rank,), options.d_initial), "v": torch.zeros(site.m)}
        super().__init__(site, options, vectors | {"up": up, "down": down}, trained=vectors)
