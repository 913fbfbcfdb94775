"""T-LoRA: fewer ranks the more noise there is.

Formula     ``W' = W + s * (up diag(values) down - up0 diag(values0) down0)``, ``s = alpha / rank``.
Training    in the denoiser each picture sees the first ``r(t) = floor((1 - t / T)^power (rank - min_rank)) + min_rank`` ranks at
            its timestep ``t`` of ``T``: what is learnt from much noise, composition and subject, has few numbers to hold it.
            Text encoders serve all timesteps and train every rank. Previews and files have every rank: no mask.
Start       ``up0, values0, down0``: singular vectors and values, the ``last``, ``middle`` or ``principal`` ones, of a random
            normal matrix with deviation ``1 / rank`` or of the weight; frozen, and the others begin there: the unchanged model.
Parameters  ``r (m + c + 1)``, and as many frozen.
Cost        ``4 N r (m + c)`` more in the forward pass; one singular value decomposition of each layer at the start.
Export      plain LoRA of rank ``2 r``: ``[up diag(values) - up0 diag(values0), up0 diag(values0)]``, ``[down; down - down0]``;
            exact, and no more of the change is lost to half precision than of its own digits.
Use         a subject from one picture or few, whose composition is not to be learnt with it.
Source      T-LoRA arXiv 2507.05964.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Adapter, RankOptions, check_rank
from morelora.as_lora import AsLoRA
from morelora.errors import AdapterError
from morelora.factors import less
from morelora.lowrank import Spectrum
from morelora.procedure import Procedure
from morelora.site import Site


class TimestepMask(Procedure):
    """Gives every layer of the denoiser the ranks of each picture's timestep."""

    adapters: dict[str, TLoRA]

    def __init__(self, adapters: Mapping[str, Adapter], steps: int) -> None:
        super().__init__({name: adapter for name, adapter in adapters.items() if not name.startswith("text_encoder")}, steps)

    def batch(self, t: Tensor, total: int) -> None:
        masks: dict[tuple[int, int, float], Tensor] = {}
        for adapter in self.adapters.values():
            shape = (adapter.options.rank, adapter.options.min_rank, adapter.options.power)
            if shape not in masks:
                masks[shape] = mask_table(t.device, total, *shape)[t]
            adapter.mask = masks[shape]


@cache
def mask_table(device: torch.device, total: int, rank: int, min_rank: int, power: float) -> Tensor:
    """``(T, rank)``: which ranks each timestep ``t = 0 .. T - 1`` sees."""
    counts = [int(((total - t) / total) ** power * (rank - min_rank)) + min_rank for t in range(total)]
    return (torch.arange(rank) < torch.tensor(counts)[:, None]).to(device)


class Paired(ways.LowRank):
    """A way of two changes of as many ranks each, side by side: a rank is dropped or masked in both."""

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        """Of the parts ``up, down`` and, if there is one, a mask ``(B, rank)`` of the ranks that each sample sees."""
        (up, down, *masks), axis = parts, self.site.input_axis
        hidden = self.site.apply(x, self.site.kernel_of(down))
        if rank_dropout:
            half = hidden.narrow(axis, 0, len(down) // 2)
            masks = [*masks, ways.kept_ranks(half, rank_dropout, axis).flatten(1)]
        for mask in masks:
            shape = [len(mask), *(1 for _ in hidden.shape[1:])]
            shape[axis] = len(down)
            hidden = hidden * mask.repeat(1, 2).view(shape)
        return self.site.mix(hidden, up)


class TLoRA(AsLoRA):
    """Masked low rank from orthogonal vectors; see the module's docstring."""

    name = "tlora"
    procedure = TimestepMask
    decomposes = False
    undecomposed = "whose change is another for each picture of a batch"
    limits_norm = False
    notice = "T-LoRA takes ranks away by noise in training alone, files use them all: raise adapter.min_rank if subjects suffer"

    class Options(RankOptions):
        """Settings of T-LoRA."""

        meaningless = {
            "start": "is for other algorithms: T-LoRA always begins with singular vectors less what they make. For those of a "
            "random matrix choose basis = 'random', for PiSSA's basis = 'weight' with singular = 'principal'"
        }

        min_rank: int = Field(1, ge=1, le=4096, description="Ranks that learn from pure noise.")
        power: float = Field(1.0, gt=0, le=10, description="How early noise takes ranks away: above 1 from little noise on.")
        basis: Literal["random", "weight"] = Field("random", description="Matrix whose singular vectors the factors start from.")
        singular: Literal["last", "middle", "principal"] = Field(
            "last", description="Which of them: the least, middle or largest."
        )

        @model_validator(mode="after")
        def _has_effect(self) -> TLoRA.Options:
            if self.min_rank > self.rank:
                raise ValueError(f"min_rank ({self.min_rank}) is above rank ({self.rank})")
            return self

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        self.way = Paired(site)
        self.mask: Tensor | None = None
        if site.groups != 1:
            raise AdapterError("T-LoRA is not defined for a convolution with groups: leave it out by a rule")
        if options.rank > min(site.m, site.c):
            raise AdapterError(f"rank {options.rank} is larger than a side of the layer's {site.m} x {site.c} weight: lower it")
        check_rank(site, options.rank, times=2)
        shapes = {"up": (site.m, options.rank), "values": (options.rank,), "down": (options.rank, site.c)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))
            self.register_buffer(f"{name}0", torch.zeros(shape))
        if options.basis == "random":
            self._begin(torch.randn(site.m, site.c, generator=generator) / options.rank)

    def meet(self, weight: Tensor) -> None:
        if self.options.basis == "weight" and not weight.is_meta:
            self._begin(weight.detach().flatten(1).float())

    @torch.no_grad()
    def _begin(self, matrix: Tensor) -> None:
        whole = Spectrum.of(matrix)
        rank, count = self.options.rank, len(whole.values)
        first = {"principal": 0, "middle": (count - rank) // 2, "last": count - rank}[self.options.singular]
        chosen = slice(first, first + rank)
        for name, tensor in {"up": whole.left[:, chosen], "values": whole.values[chosen], "down": whole.right[chosen]}.items():
            getattr(self, name).copy_(tensor)
            getattr(self, f"{name}0").copy_(tensor)

    def factors(self) -> tuple[Tensor, Tensor]:
        scale = self.options.scale
        return less(
            (ways.scaled(self.up * self.values, scale), self.down), (ways.scaled(self.up0 * self.values0, scale), self.down0)
        )

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        if self.mask is None or not self.training:
            return super().forward(x, base, strength, gain)
        parts = *self.parts(strength), self.mask
        return ways.run_with_dropout(self.way, x, base, parts, gain, self.options.chances)
