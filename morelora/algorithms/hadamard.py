"""Hadamard: MoreLoRA's product of ``k`` low-rank products. LoHa is ``k = 2`` in the field's own convention and file.

Formula     ``W' = W + s * f(u_1 v_1) * ... * f(u_k v_k)`` entry by entry, ``u_i (m, r_i)``, ``v_i (r_i, c)``, ``s = alpha / r``;
            the rank ``r = r_1 + ... + r_k`` is dealt out to the ``k`` products (LoHa counts it for each). ``f`` is the
            identity, ``tanh``, or ``sigmoid``: ``2 sigma(z) - 1 = tanh(z / 2)``, since ``sigma(0) = 1/2`` would not start at
            the unchanged model.
Rank        at most ``R = r_1 ... r_k``, so ``(r / k)^k``: exactly a LoRA of that rank. With ``tanh`` or ``sigmoid`` up to full.
Start       ``u_k = 0``: the unchanged model. The others are normal with standard deviation ``r_i^(-1/4)``, which gives each
            ``u_i v_i`` unit variance; with small factors the first gradient, a product of ``k - 1`` of them, would vanish.
Parameters  ``r (m + c)``.
Cost        ``2 N R (m + c)`` more in the forward pass; where that is more than the layer itself, and with ``f``, ``2 m c r`` for
            the whole change, which is made again for backward and kept nowhere.
Export      the smallest of these exact forms: plain LoRA of rank ``R``; LoHa, both halves of the products folded into one pair
            each and the thinner filled up with zeros, of rank ``(r / k)^(k / 2)``; the change itself (``diff``), which is all
            there is with ``f``. The form ``lora`` is always plain LoRA.
Use         high rank from few numbers: ``k`` sets the one against the other. ``nonlinear`` for a change that no small rank holds.
Sources     MoreLoRA (2023); FedPara arXiv 2108.06098 for ``k = 2``; the factorisation: arXiv 2505.14238.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Tensors, alpha_of, need, need_any
from morelora.as_lora import plain_tensors
from morelora.errors import AdapterError
from morelora.products import Nonlinear, ProductAdapter, Products, loha_tensors, smallest_form
from morelora.residual import StartOptions
from morelora.site import Site

PREFIX: dict[Nonlinear, str] = {"none": "hadamard", "tanh": "hadamard_tanh", "sigmoid": "hadamard_sigmoid"}
"""Of the leaf names in our own file."""


class Hadamard(ProductAdapter):
    """``W + s * f(u_1 v_1) * ... * f(u_k v_k)``; see the module's docstring."""

    name = "hadamard"
    leaves = frozenset(f"{prefix}_{side}1" for prefix in PREFIX.values() for side in "uv")

    class Options(StartOptions):
        """Settings of Hadamard products."""

        rank: int = Field(
            12,
            ge=1,
            le=4096,
            description="Rank of all products together, dealt out to them; the change has up to (rank / k) to the power of k.",
            json_schema_extra={"level": "basic"},
        )
        k: int = Field(3, ge=1, le=8, description="How many low-rank products are multiplied entry by entry.")
        nonlinear: Nonlinear = Field(
            "none",
            description="Function of each product before they are multiplied: tanh, or sigmoid (as 2 sigmoid - 1, which starts "
            "at zero); then the change has full rank and its file is as large as the layers.",
        )

        @property
        def is_homogeneous(self) -> bool:
            return self.nonlinear == "none" and super().is_homogeneous

        @property
        def ranks(self) -> tuple[int, ...]:
            """``r_1 .. r_k``, as even as can be."""
            return tuple(self.rank // self.k + (index < self.rank % self.k) for index in range(self.k))

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        if options.rank < options.k:
            raise AdapterError(f"rank ({options.rank}) must be at least k ({options.k}): each product needs a rank of its own")
        self.total = math.prod(options.ranks)
        self.way = Products(site, options.k, options.nonlinear)
        if options.nonlinear != "none":
            self.thick = f"a product of {options.nonlinear}, of full rank", "train with nonlinear = 'none'"
        else:
            self.thick = f"a Hadamard product of {self.total} ranks, more than the layer has", "lower adapter.rank or adapter.k"
        if options.rank_dropout and not self.is_thin:
            raise AdapterError(f"rank_dropout has no meaning for {self.thick[0]}: set it to 0, or {self.thick[1]}")
        for index, rank in enumerate(options.ranks, 1):
            for side, shape in (("u", (site.m, rank)), ("v", (rank, site.c))):
                values = torch.randn(shape, generator=generator) * rank**-0.25
                self.register_parameter(f"{side}{index}", nn.Parameter(values))
        nn.init.zeros_(self.zero_factors()[0])

    def sides(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """``u_1 .. u_k`` and ``v_1 .. v_k``."""
        return tuple([getattr(self, f"{side}{index + 1}") for index in range(self.options.k)] for side in "uv")

    @property
    def is_thin(self) -> bool:
        return self.options.nonlinear == "none" and super().is_thin

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        (first, *lefts), rights = self.sides()
        factor = self.options.scale * strength
        if self.options.nonlinear != "none":
            return first, *lefts, *rights, first.new_full((1,), factor)
        return ways.scaled(first, factor), *lefts, *rights

    def zero_factors(self) -> list[nn.Parameter]:
        return self.sides()[0][-1:]

    def _form(self) -> tuple[str, int | None]:
        if self.options.nonlinear != "none":
            return "full", None
        return smallest_form(self.site, self.options.ranks, self.is_thin)

    @property
    def filed_as(self) -> str:
        return self._form()[0]

    @property
    def file_rank(self) -> int | None:
        return self._form()[1]

    @property
    def holds_magnitudes(self) -> bool:
        """A ``diff`` beside magnitudes is read by nobody."""
        return self.filed_as != "full"

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        form, parts = self.filed_as, self.parts(1.0)
        if form == "full":
            return {"diff": self.delta(base.weight)}
        if form == "loha":
            return loha_tensors(parts[: self.options.k], parts[self.options.k :])
        return plain_tensors(self.site, *self.way.joined(*parts), alpha)

    def tensors(self, alpha: float) -> Tensors:
        own = {f"{PREFIX[self.options.nonlinear]}_{name}": parameter for name, parameter in self.named_parameters()}
        return own | {"alpha": torch.tensor(self.options.scale * self.options.rank)}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Hadamard:
        nonlinear = next(name for name, prefix in PREFIX.items() if f"{prefix}_u1" in tensors or f"{prefix}_v1" in tensors)
        prefix = PREFIX[nonlinear]
        k = sum(leaf.startswith(f"{prefix}_v") for leaf in tensors)
        rank = sum(need_any(tensors, f"{prefix}_v{index + 1}").shape[0] for index in range(k))
        self = cls(site, cls.Options(rank=rank, alpha=alpha_of(tensors, rank), k=k, nonlinear=nonlinear))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(need(tensors, f"{prefix}_{name}", tuple(parameter.shape)))
        return self
