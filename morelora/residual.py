"""Starts other than zero, for any algorithm of factors: what the adapter begins with is taken off the weight again.

Formula     ``W' = W - D(theta0) + D(theta)`` with the algorithm's own ``D`` and a frozen copy ``theta0`` of its start.
Start       ``theta = theta0``: the unchanged model, bit for bit, and a gradient for every factor in the first step.
            ``residual``: the factors that would start at zero are uniform in ``+-1 / sqrt(fan in)`` (MoreLoRA).
            ``pissa``: the largest singular triplets of the weight, ``s up0 down0 = U_r S_r V_r^T``, the values shared evenly.
            ``olora``: ``up0 = Q_r``, ``down0 = R_r`` of ``W = Q R``.
Rank        twice the algorithm's. Of factors ``up, down`` the change is

                D(theta) - D(theta0) = [up - up0, up0] @ [down; down - down0],

            whose differences are made in float32: nothing cancels in half precision, in training or in a file.
Ranks       that are gated, or not drawn in a step, take their start with them (``morelora/anchored.py``): ``adalora``, ``sora``,
            ``dylora``; and so does ``glora``, whose change depends on the weight.
Parameters  the algorithm's, and as many frozen, which checkpoints hold: ``theta0`` must come back to the last bit.
Cost        twice the algorithm's as a plain LoRA; where that is more than the layer itself, and where the algorithm has no thin
            factors, the ``m c`` numbers of the whole change. One decomposition of each weight at the start.
Export      plain LoRA of twice the rank, exact on the base as it is; without thin factors the change itself (``diff``), and in
            our own file ``start.*``, the algorithm's tensors of ``theta0``, and ``moved.*``, those of ``theta`` less these.
Sources     MoreLoRA (2023); PiSSA arXiv 2404.02948; OLoRA arXiv 2406.01775. peft writes ``[up, -up0]``, the same change, of
            which float16 loses as much as of the start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Adapter, BranchOptions, RankOptions, Tensors, need_any
from morelora.anchored import Anchored
from morelora.as_lora import plain_tensors
from morelora.cost import Work
from morelora.errors import AdapterError
from morelora.factors import less, product_norm, uniform
from morelora.lowrank import Spectrum
from morelora.site import Site

Start = Literal["default", "residual", "pissa", "olora"]
OF_WEIGHT = ("pissa", "olora")
START, MOVED = "start.", "moved."
NONE = torch.empty(0)
"""The weight, for changes that do not depend on it."""


class StartChoice(BranchOptions):
    """Settings of the algorithms whose start can be chosen."""

    takes_weight: ClassVar[bool] = False
    """Whether its factors can take a decomposition of the weight."""

    start: Start = Field(
        "default",
        description="Values that the factors begin with, at the unchanged model all the same: default, the algorithm's own, one "
        "of them zero; residual, all random, less what they make; pissa, the weight's largest singular vectors, less the same; "
        "olora, its QR factors. The file has twice the rank.",
    )

    @property
    def is_homogeneous(self) -> bool:
        return self.start == "default"

    @model_validator(mode="after")
    def _may_start_so(self) -> StartChoice:
        if self.start in OF_WEIGHT and not self.takes_weight:
            what = "decomposes the weight into two factors, and this algorithm's change is no product of two"
            raise ValueError(f"start = {self.start!r} {what}: use start = 'residual', or algorithm = 'lora'")
        if self.start != "default" and self.chances[1]:
            why = "would drop ranks of the change and keep those of its start"
            raise ValueError(f"rank_dropout {why}: set it to 0, or start = 'default'")
        return self


class StartOptions(StartChoice, RankOptions):
    """Settings of those of them that have a rank."""


@torch.no_grad()
def started(adapter: Adapter, weight: Tensor, generator: Generator | None = None) -> Adapter:
    """The adapter with the start that its options ask for.

    Raises:
        AdapterError: the layer has fewer singular vectors than the rank.
    """
    options = adapter.options
    if not isinstance(options, StartChoice) or options.start == "default":
        return adapter
    if options.start == "residual":
        for factor in adapter.zero_factors():
            if factor.dim():  # a change that is linear in one number begins at no other than itself
                factor.copy_(uniform(tuple(factor.shape), factor.shape[-1], generator))
    elif not weight.is_meta:
        adapter.take(*decomposed(adapter.site, options, weight))
    return adapter.anchor() if isinstance(adapter, Anchored) else Residual(adapter)


def decomposed(site: Site, options: StartOptions, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``up0 (m, r)`` and ``down0 (r, c)`` of ``pissa`` or ``olora``, as peft has them."""
    if options.rank > min(site.m, site.c):
        what = f"rank {options.rank} is larger than a side of the layer's {site.m} x {site.c} weight"
        raise AdapterError(f"{what}, which start = {options.start!r} decomposes: lower it")
    flat = weight.detach().flatten(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    if options.start == "olora":
        q, r = torch.linalg.qr(flat)
        return q[:, : options.rank], r[: options.rank]
    up, down = Spectrum.of(flat).cut(options.rank)
    return up / options.scale**0.5, down / options.scale**0.5


class Residual(Adapter):
    """``D(theta) - D(theta0)`` around an adapter that gives ``D``; see the module's docstring."""

    def __init__(self, inner: Adapter) -> None:
        super().__init__(inner.site, inner.options)
        self.inner, self.origin = inner, _frozen(inner)
        self.scale, self.decomposes, self.limits_norm = inner.scale, inner.decomposes, inner.limits_norm
        factors = inner.factors()
        self.rank = None if factors is None else 2 * factors[0].shape[1]
        self.thick = inner.thick
        if self.rank is not None and self.rank > max(self.site.m, self.site.c):
            self.thick = f"a change of {self.rank} ranks less its start, more than the layer has", "lower adapter.rank"
            self.rank = None
        self.way: ways.Way = Whole(self.site) if self.rank is None else ways.LowRank(self.site)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner algorithm's name."""
        return self.inner.name

    @property
    def filed_as(self) -> str:
        return "full" if self.rank is None else "lora"

    @property
    def file_rank(self) -> int | None:
        return self.rank

    @property
    def holds_magnitudes(self) -> bool:  # type: ignore[override]
        """A ``diff`` beside magnitudes is read by nobody."""
        return self.rank is not None

    def remark(self) -> str:
        return self.inner.remark()

    def zero_factors(self) -> list[nn.Parameter]:
        """The numbers that ``started`` leaves as they are."""
        return [factor for factor in self.inner.zero_factors() if not factor.dim()]

    def factors(self) -> tuple[Tensor, Tensor] | None:
        now, start = (self.inner.factors(), self.origin.factors()) if self.rank is not None else (None, None)
        if now is None or start is None:
            return None
        return less(now, start)

    def delta(self, weight: Tensor) -> Tensor:
        return self.inner.delta(weight) - self.origin.delta(weight)

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        if isinstance(self.way, Whole):
            parts: tuple[Tensor, ...] = (ways.scaled(self.delta(NONE).flatten(1), strength),)
        else:
            up, down = self.factors()
            parts = ways.scaled(up, strength), down
        if self.training and self.options.dropout:
            return ways.run_with_dropout(self.way, x, base, parts, gain, (self.options.dropout, 0.0))
        return ways.run(self.way, x, base, parts, gain)

    def norm(self) -> Tensor:
        factors = self.factors()
        return self.delta(NONE).norm() if factors is None else product_norm(*factors)

    def tensors(self, alpha: float) -> Tensors:
        factors = self.thin_factors()
        if factors is not None:
            return plain_tensors(self.site, *factors, alpha)
        now, start = self.inner.tensors(alpha), self._at_start().tensors(alpha)
        moved = {f"{MOVED}{leaf}": tensor - start[leaf] for leaf, tensor in now.items()}
        return moved | {f"{START}{leaf}": tensor for leaf, tensor in start.items()}

    @torch.no_grad()
    def _at_start(self) -> Adapter:
        """The algorithm's adapter as it was."""
        twin = copy.deepcopy(self.inner)
        for name, parameter in twin.named_parameters():
            parameter.copy_(getattr(self.origin, name))
        return twin

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return self.tensors(alpha) if self.rank is not None else {"diff": self.delta(NONE)}

    @classmethod
    @torch.no_grad()
    def read(cls, tensors: Tensors, inside: Callable[[Tensors], Adapter]) -> Residual:
        """From ``start.*`` and ``moved.*``; ``inside`` reads the algorithm's own tensors."""
        start = {leaf.removeprefix(START): tensor.float() for leaf, tensor in tensors.items() if leaf.startswith(START)}
        now = {leaf: tensor + need_any(tensors, f"{MOVED}{leaf}") for leaf, tensor in start.items()}
        self = cls(inside(start))
        for own, value in zip(self.inner.parameters(), inside(now).parameters(), strict=True):
            own.copy_(value)
        return self


def _frozen(adapter: Adapter) -> Adapter:
    """A copy whose parameters are buffers."""
    twin = copy.deepcopy(adapter)
    for name, parameter in list(twin.named_parameters()):
        delattr(twin, name)
        twin.register_buffer(name, parameter.detach())
    return twin


class Whole(ways.Way):
    """A way to apply a change as the ``(m, c)`` numbers that it is, its one part."""

    def work(self, *parts: Tensor) -> Work:
        return Work(0, 0, 0, 0, 0, None, has_branch=False)

    def change(self, *parts: Tensor) -> Tensor:
        return parts[0]
