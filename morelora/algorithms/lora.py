"""LoRA, and LoCon on convolutions.

Formula     ``W' = W + s * up @ down``, ``up (m, r)``, ``down (r, c)``, ``s = alpha / r`` (rsLoRA: ``alpha / sqrt(r)``).
Tucker      ``down[a, (i, k)] = sum_b mid[a, b, k] * core[b, i]`` for kernels larger than 1x1; still exactly rank ``r``.
Start       ``down`` (and ``mid``, ``core``) uniform with variance ``1 / (3 fan_in)``, ``up = 0``: the unchanged model.
Starts      also ``residual``, ``pissa`` and ``olora``: ``morelora/residual.py``.
Frozen      with ``freeze_down`` (LoRA-FA) they stay so and ``up`` alone trains: the change keeps to the rows of a random
            projection. They come from the run's seed again, and no checkpoint holds them.
Parameters  ``r (m + c)``; Tucker: ``r (m + n) + r^2 k^2``; LoRA-FA: ``r m``.
Cost        ``2 N r (m + c)`` more in the forward pass; LoRA-FA keeps ``N r`` numbers for backward instead of the input's ``N n``.
Export      ``lora_up.weight (m, r[, 1, 1])``, ``lora_down.weight (r, n[, kh, kw])``, ``alpha``; Tucker adds
            ``lora_mid.weight (r, r, kh, kw)``. Exact in every client (Tucker: not in diffusers, which gets the folded form).
Use         the first to try: every program reads its file, and published recipes give its rates. Convolutions (``layers =
            "all"``) for texture; ``freeze_down`` where memory is short; a ``start`` from the weight where steps are few.
Sources     LoRA arXiv 2106.09685; LoCon and Tucker: LyCORIS arXiv 2309.14859; rsLoRA arXiv 2312.03732; LoRA-FA
            arXiv 2308.03303.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Factored, Tensors, alpha_of, check_rank, need, need_any
from morelora.as_lora import plain_tensors
from morelora.errors import AdapterError
from morelora.factors import tucker_down, uniform
from morelora.residual import OF_WEIGHT, StartOptions
from morelora.site import Site


class LoRA(Factored):
    """``W + s * up @ down``; see the module's docstring."""

    name = "lora"
    leaves = frozenset({"lora_up.weight", "lora_down.weight"})

    class Options(StartOptions):
        """Settings of LoRA and LoCon."""

        takes_weight = True
        tucker: bool = Field(False, description="Tucker factors for kernels larger than 1x1: fewer parameters at the same rank.")
        freeze_down: bool = Field(
            False,
            description="LoRA-FA: the down factor keeps its random start and only the up factor trains: half the parameters, and "
            "no layer keeps its input for the backward pass.",
        )

        @model_validator(mode="after")
        def _has_effect(self) -> LoRA.Options:
            if self.tucker and self.start in OF_WEIGHT:
                what = f"start = {self.start!r} decomposes the weight into two factors, and a Tucker kernel has three"
                raise ValueError(f"{what}: set tucker = false, or start = 'residual'")
            if self.freeze_down and self.start != "default":
                why = "is for factors that both train, and freeze_down keeps one as it is drawn"
                raise ValueError(f"start = {self.start!r} {why}: use one of them")
            return self

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        rank, tucker = options.rank, options.tucker and site.is_spatial
        check_rank(site, rank)
        self.way = ways.LowRank(site, keeps_input=not options.freeze_down)
        self.up = nn.Parameter(torch.zeros(site.m, rank))
        down = uniform((rank, site.n if tucker else site.c), site.n if tucker else site.c, generator)
        mid = uniform((rank, rank, *site.kernel), rank * site.taps, generator) if tucker else None
        self.hold("down", down, trains=not options.freeze_down)
        self.hold("mid", mid, trains=not options.freeze_down)

    def remark(self) -> str:
        too_much = self.options.rank > min(self.site.m, self.site.c)
        return "the rank is above the layer's full rank, which costs memory and gains nothing" if too_much else ""

    def zero_factors(self) -> list[nn.Parameter]:
        return [] if self.options.freeze_down else [self.up]

    @torch.no_grad()
    def take(self, up: Tensor, down: Tensor) -> None:
        self.up.copy_(up)
        self.down.copy_(down)

    def factors(self) -> tuple[Tensor, Tensor]:
        down = self.down if self.mid is None else tucker_down(self.mid, self.down)
        return ways.scaled(self.up, self.options.scale), down

    def tensors(self, alpha: float) -> Tensors:
        if self.mid is None:
            return plain_tensors(self.site, self.up, self.down, alpha, self.options.scale)
        up = self.up * (self.options.scale * self.options.rank / alpha)
        core = {"lora_down.weight": self.down[:, :, None, None], "lora_mid.weight": self.mid}
        return core | {"lora_up.weight": up[:, :, None, None], "alpha": torch.tensor(alpha)}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> LoRA:
        rank = need_any(tensors, "lora_down.weight").shape[0]
        tucker = "lora_mid.weight" in tensors
        if tucker and not site.is_spatial:
            raise AdapterError("lora_mid.weight stands in a file for a layer that has no kernel larger than 1x1")
        one = () if site.kernel is None else (1, 1)
        down_shape = (rank, site.n, *(one if tucker else site.kernel or ()))
        # LyCORIS' DyLoRA writes a convolution's up factor in two dimensions.
        up_shape = (site.m, rank) if need_any(tensors, "lora_up.weight").dim() == 2 else (site.m, rank, *one)
        self = cls(site, cls.Options(rank=rank, alpha=alpha_of(tensors, rank), tucker=tucker))
        with torch.no_grad():
            self.up.copy_(need(tensors, "lora_up.weight", up_shape).flatten(1))
            self.down.copy_(need(tensors, "lora_down.weight", down_shape).flatten(1))
            if self.mid is not None:
                self.mid.copy_(need(tensors, "lora_mid.weight", (rank, rank, *site.kernel)))
        return self
