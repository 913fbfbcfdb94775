"""What an adapter is: one frozen layer's trainable change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from morelora import cost, ways
from morelora.errors import AdapterError
from morelora.factors import product_norm
from morelora.procedure import Procedure
from morelora.site import NormSite, Site

Tensors = dict[str, Tensor]


class Options(BaseModel):
    """Settings that every algorithm has. An algorithm adds its own and overrides what it cannot honour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meaningless: ClassVar[Mapping[str, str]] = {}
    """Options that other algorithms have and this one cannot: why, and what to choose."""

    module_dropout: float = Field(0.0, ge=0, lt=1, description="Chance that a layer's adapter is skipped for one training step.")

    @model_validator(mode="before")
    @classmethod
    def _has_meaning(cls, values: Any) -> Any:
        for name in cls.meaningless.keys() & values if isinstance(values, Mapping) else ():
            raise ValueError(f"{name} = {values[name]!r} {cls.meaningless[name]}")
        return values

    @property
    def is_homogeneous(self) -> bool:
        """Whether a factor can be made so much larger that the change is a given multiple of what it was."""
        return True


class BranchOptions(Options):
    """Settings of the algorithms that are applied beside the frozen layer."""

    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the adapter's branch, in training.")

    @property
    def chances(self) -> tuple[float, float]:
        """Of dropout on the branch's input, and of whole ranks."""
        return self.dropout, 0.0


class FactorOptions(BranchOptions):
    """Settings of the algorithms that have a rank."""

    rank_dropout: float = Field(
        0.0, ge=0, lt=1, description="Chance that one rank is dropped for one picture, in training; others are scaled up."
    )
    rank: int = Field(
        8,
        ge=1,
        le=4096,
        description="Rank of the factors: more rank, more capacity and a larger file.",
        json_schema_extra={"level": "basic"},
    )

    @property
    def chances(self) -> tuple[float, float]:
        return self.dropout, self.rank_dropout

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return 1.0


class RankOptions(FactorOptions):
    """Settings of the algorithms that have a rank and a scale ``s = alpha / rank``."""

    alpha: float | None = Field(
        None,
        gt=0,
        description="The change is multiplied by alpha / rank. Empty means alpha = rank, a factor of 1.",
    )
    rs: bool = Field(False, description="Rank-stabilised scale (rsLoRA): alpha / sqrt(rank) instead of alpha / rank.")

    @property
    def scale(self) -> float:
        """``alpha / rank``, or ``alpha / sqrt(rank)`` with ``rs``."""
        return self.scale_at(self.rank)

    def scale_at(self, rank: int) -> float:
        """The scale where only so many of the ranks act."""
        return (self.rank if self.alpha is None else self.alpha) / (rank**0.5 if self.rs else rank)


class Adapter(nn.Module):
    """One layer's change: ``W' = W + delta(W)``, and ``b' = b + bias_delta(b)`` where the algorithm changes the bias.

    ``delta`` is the definition, used for merging and as the oracle of the tests. ``forward`` is the cheapest exact way
    to apply it. A subclass defines ``Options``, ``leaves``, ``delta``, ``tensors`` and ``from_tensors``.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    leaves: ClassVar[frozenset[str]]
    """Leaf names of which one alone tells that a file's module holds this algorithm."""
    decomposes: ClassVar[bool] = True
    """Whether weight decomposition may stand around it."""
    undecomposed: ClassVar[str] = "which is free as it is"
    """Why not, where it may not."""
    holds_magnitudes: bool = True
    """Whether programs that read it in a file read ``dora_scale`` beside it alike; else the file holds the dense change."""
    mergeable: ClassVar[bool] = True
    """Whether it is a change of weight and bias at all; what is not has no ``delta`` and no file that other programs read."""
    limits_norm: ClassVar[bool] = True
    """Whether ``norm`` is known without the weight and ``limit_norm`` can shorten it."""
    places: ClassVar[str] = ""
    """Where it stands among the layers that are chosen by group: a regular expression; empty for everywhere."""
    notice: ClassVar[str] = ""
    """What a user should know of the algorithm before training with it; empty for nothing."""
    thick: tuple[str, str] = ("a change of full rank", "train with another algorithm")
    """Where ``factors`` gives none: what it then is, and how to train something that has them."""

    procedure: ClassVar[type[Procedure] | None] = None
    """What it does between the steps of a training, over all its layers; None for nothing."""

    def __init__(self, site: Site, options: Options) -> None:
        super().__init__()
        if site.groups != 1 and (getattr(options, "dropout", 0) or getattr(options, "rank_dropout", 0)):
            raise AdapterError("dropout and rank_dropout are not defined for a convolution with groups: set them to 0")
        self.site = site
        self.options = options
        self.scale = float(getattr(options, "scale", 1.0))

    @classmethod
    def suits(cls, site: Site) -> bool:
        """Whether such a layer has what the algorithm changes; layers that have not are left out."""
        return not isinstance(site, NormSite)

    @property
    def plain(self) -> Adapter:
        """The additive adapter itself, without weight decomposition around it."""
        return self

    @property
    def filed_as(self) -> str:
        """The algorithm that reads its file."""
        return self.name

    @property
    def file_rank(self) -> int | None:
        """The rank that its file has; None where it has none."""
        return self.options.rank if isinstance(self.options, RankOptions) else None

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of its tensors that layers of one shape, and of the same settings, have in common: those of the first one."""
        return ()

    def hold(self, name: str, start: Tensor | None, trains: bool = True) -> None:
        """Have a tensor as what it is: trained, or as the run's seed gives it wherever it is needed, and in no checkpoint."""
        if trains:
            self.register_parameter(name, None if start is None else nn.Parameter(start))
        else:
            self.register_buffer(name, start, persistent=False)

    def meet(self, weight: Tensor) -> None:
        """Before the first use: what depends on the frozen weight takes its start from it."""

    def take(self, up: Tensor, down: Tensor) -> None:
        """Begin with the change ``scale * up @ down``; where the factors are these two."""
        raise NotImplementedError

    @property
    def current(self) -> Adapter:
        """The adapter that trains, without what finished cycles of restarts left."""
        return self

    @property
    def is_folded(self) -> bool:
        """Whether a part of the change stands in the frozen weight already."""
        return False

    def unfolded(self, weight: Tensor) -> Tensor:
        """The frozen weight as it was, of what stands in the layer now."""
        return weight

    def leave(self, base: nn.Module) -> None:
        """Give the frozen layer its own weight back, bit for bit, where a part of the change was written into it."""

    def is_skipped(self) -> bool:
        """Module dropout, drawn on the CPU so that no device is waited for."""
        chance = self.options.module_dropout
        return bool(self.training and chance and torch.rand(()) < chance)

    def delta(self, weight: Tensor) -> Tensor:
        """``W' - W``, of the weight's shape. ``weight`` is the frozen ``W``."""
        raise NotImplementedError

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        """The adapted layer's output, ``(W + strength * delta) (gain * x) + b``.

        Args:
            x: the layer's input.
            base: the frozen layer.
            strength: ``t``.
            gain: ``(n,)``, the input scaling of weight decomposition.
        """
        raise NotImplementedError

    def bias_delta(self, bias: Tensor | None) -> Tensor | None:
        """``b' - b``, ``(m,)``; None where the bias stays. ``bias`` is the frozen ``b``, if the layer has one."""
        return None

    def zero_factors(self) -> list[nn.Parameter]:
        """The factors that start at zero beside others that do not: LoRA+ gives them a larger rate. None by default."""
        return []

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Exact ``up (m, R)`` and ``down (R, c)`` with ``delta = up @ down``, scale included; None if there are none."""
        return None

    def norm_factors(self) -> tuple[Tensor, Tensor] | None:
        """``factors``, where norms of ``W + delta`` come cheaper by them than by ``delta``."""
        return self.factors()

    def thin_factors(self) -> tuple[Tensor, Tensor] | None:
        """``factors`` for a file: without ranks that add nothing. May wait for the device."""
        return self.factors()

    def factors_of(self, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """``thin_factors`` of the change of this frozen weight, for algorithms whose change depends on it."""
        return self.thin_factors()

    def tensors(self, alpha: float) -> Tensors:
        """Its own tensors by field-standard leaf names; ``alpha`` is the one value that the file carries."""
        raise NotImplementedError

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        """What a file for web UIs holds: its own tensors, or the same change of ``base`` in a form that more of them read."""
        return self.tensors(alpha)

    @classmethod
    def reads(cls, tensors: Tensors) -> bool:
        """Whether a file's module with these tensors holds this algorithm."""
        return bool(cls.leaves & tensors.keys())

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Adapter:
        """An adapter with a file's tensors. Raises ``AdapterError`` where the shapes do not fit the site."""
        raise NotImplementedError

    def remark(self) -> str:
        """What a user should know of this adapter on this layer; empty for nothing."""
        return ""

    def norm(self) -> Tensor:
        """``||delta||_F`` of the additive part, as a scalar tensor."""
        raise NotImplementedError

    @torch.no_grad()
    def limit_norm(self, maximum: float) -> None:
        """Max-norm: scale the trainable factors so that ``||delta||_F <= maximum``. Waits for no device."""
        factors = self.scaled_factors()
        shrink = (maximum / self.norm().clamp_min(maximum)) ** (1 / len(factors))
        for factor in factors:
            factor.mul_(shrink)

    def scaled_factors(self) -> list[nn.Parameter]:
        """The parameters whose product the change is linear in, one each."""
        return list(self.parameters())

    def rescale(self, factor: float) -> None:
        """Make what ``scale`` multiplies ``factor`` times as large; where ``options.is_homogeneous``."""
        self.scaled_factors()[0].mul_(factor)


class RankAdapter(Adapter):
    """An adapter that is applied by a way; a subclass sets ``way`` and defines ``parts``."""

    options: BranchOptions
    way: ways.Way

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        """The factors that ``way`` takes, scale and strength included."""
        raise NotImplementedError

    def norm_factors(self) -> tuple[Tensor, Tensor] | None:
        work = self.way.work(*self.parts(1.0))
        return self.factors() if cost.prefers_gram(work, self.site) else None

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        return self.applied(x, base, self.parts(strength), gain)

    def applied(self, x: Tensor, base: nn.Module, parts: tuple[Tensor, ...], gain: Tensor | None) -> Tensor:
        """The layer's output with these factors, dropout included."""
        if self.training and any(self.options.chances):
            return ways.run_with_dropout(self.way, x, base, parts, gain, self.options.chances)
        return ways.run(self.way, x, base, parts, gain)


class Factored(RankAdapter):
    """An adapter whose change is exactly ``up @ down``; a subclass defines ``factors``."""

    def __init__(self, site: Site, options: BranchOptions) -> None:
        super().__init__(site, options)
        self.way = ways.LowRank(site)

    def factors(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        up, down = self.factors()
        return ways.scaled(up, strength), down

    def delta(self, weight: Tensor) -> Tensor:
        up, down = self.factors()
        return (up @ down).view(self.site.weight_shape)

    def norm(self) -> Tensor:
        return product_norm(*self.factors())


def check_rank(site: Site, rank: int, times: int = 1) -> None:
    """Raise ``AdapterError`` for a change of ``times`` the rank, where no matrix of the layer's size has that, nor any file."""
    if times * rank > max(site.m, site.c):
        made = f"rank {rank}" if times == 1 else f"rank {rank} makes a change of rank {times * rank}, which"
        raise AdapterError(f"{made} is larger than both sides of the layer's {site.m} x {site.c} weight: lower it")


def need(tensors: Tensors, leaf: str, shape: tuple[int | None, ...]) -> Tensor:
    """``tensors[leaf]`` if it has ``shape`` (None: any size).

    Raises:
        AdapterError: it is missing or has another shape; the message names both shapes.
    """
    tensor = need_any(tensors, leaf)
    have = tuple(tensor.shape)
    if len(have) != len(shape) or any(want not in (None, size) for want, size in zip(shape, have, strict=True)):
        raise AdapterError(f"{leaf} has shape {have}, but this layer needs {shape}".replace("None", "any"))
    return tensor


def need_any(tensors: Tensors, leaf: str) -> Tensor:
    """``tensors[leaf]`` of any shape, or ``AdapterError``."""
    if leaf not in tensors:
        raise AdapterError(f"{leaf} is missing (found: {', '.join(sorted(tensors))})")
    return tensors[leaf]


def alpha_of(tensors: Tensors, rank: int) -> float:
    """A file's alpha; missing or zero means ``rank``, as all readers take it."""
    return float(tensors["alpha"]) or float(rank) if "alpha" in tensors else float(rank)
