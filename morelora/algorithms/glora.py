"""GLoRA: one low-rank change of the layer's inputs, seen through its weight, and one beside it.

Formula     ``W' = W + s * (W a1 a2 + b1 b2)``, ``a1 (n, r)``, ``a2 (r, n)``, ``b1 (m, r)``, ``b2 (r, c)``, ``s = alpha / r``
            (rsLoRA: ``alpha / sqrt(r)``); on kernels ``a1 a2`` mixes channels, at each tap alike. Not for convolutions with
            groups.
Start       ``a1, b1`` uniform in ``+-1 / sqrt(r)``, ``a2 = b2 = 0``, as LyCORIS: the unchanged model. Also ``residual``
            (``morelora/residual.py``): all four random, less ``W a1 a2 + b1 b2`` of these, so that the ranks are twice as many.
Rank        ``2 r`` of linear layers and 1x1 kernels: exactly ``up = s [W a1, b1]``, ``down = [a2; b2]``. On a kernel of ``k``
            taps ``(k + 1) r``: ``W a1`` has a column for each tap, ``down = [a2 (x) I_k; b2]``.
Parameters  ``r (3 n + m)``; on kernels ``r (2 n + c + m)``.
Cost        ``4 N r (m + n)`` more in the forward pass, and ``2 m c r`` for ``W a1``, which is made again for each step: the sum
            ``x + a1 a2 x`` would round a small change away in half precision. Kept for backward is the layer, not ``W a1 a2``.
Export      plain LoRA by these factors, exact in every client on the base that it was trained on; where they are thicker than
            the layer, the QR factors of their product. Own tensors (sidecar form, and LyCORIS' files): ``a1.weight (n, r)``,
            ``a2.weight (r, n)``, ``b1.weight (m, r)``, ``b2.weight (r, n[, kh, kw])``, ``alpha = r`` with ``s`` folded in,
            which LyCORIS, ComfyUI and Forge read; A1111 reads an older order of the four, which is taken here too.
Use         where outputs alone are not enough: what a layer reads of its inputs changes too; at up to
            twice LoRA's rate.
Source      GLoRA arXiv 2306.07967; this form of it: LyCORIS.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import RankAdapter, Tensors, alpha_of, check_rank, need, need_any
from morelora.anchored import Anchored
from morelora.as_lora import plain_tensors
from morelora.errors import AdapterError
from morelora.factors import less, no_thicker, uniform
from morelora.residual import StartOptions
from morelora.site import Site
from morelora.through import OnKernel, change, joined, through_layer, through_weight

LEAVES = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")


class GLoRA(RankAdapter, Anchored):
    """``W + s * (W a1 a2 + b1 b2)``; see the module's docstring."""

    name = "glora"
    leaves = frozenset(LEAVES)
    filed_as = "lora"
    limits_norm = False
    anchors = ("a1", "a2", "b1", "b2")

    class Options(StartOptions):
        """Settings of GLoRA."""

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        if site.groups != 1:
            raise AdapterError("GLoRA is not defined for a convolution with groups: leave it out by a rule")
        check_rank(site, options.rank)
        self.way = OnKernel(site) if site.is_spatial else ways.LowRank(site)
        rank = options.rank
        self.a1 = nn.Parameter(uniform((site.n, rank), rank, generator))
        self.a2 = nn.Parameter(torch.zeros(rank, site.n))
        self.b1 = nn.Parameter(uniform((site.m, rank), rank, generator))
        self.b2 = nn.Parameter(torch.zeros(rank, site.c))

    @property
    def file_rank(self) -> int:
        rank = (1 + self.is_anchored) * self.options.rank
        return min((self.site.taps + 1) * rank, self.site.m, self.site.c)

    def zero_factors(self) -> list[nn.Parameter]:
        return [] if self.is_anchored else [self.a2, self.b2]

    def rescale(self, factor: float) -> None:
        self.a2.mul_(factor)
        self.b2.mul_(factor)

    def four(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``a1, a2, b1, b2``; with a start those of twice the rank that have it taken off."""
        if not self.is_anchored:
            return self.a1, self.a2, self.b1, self.b2
        a1, a2, b1, b2 = self.at_start()
        return *less((self.a1, self.a2), (a1, a2)), *less((self.b1, self.b2), (b1, b2))

    def parts_of(self, weight: Tensor) -> tuple[Tensor, ...]:
        """``W a1`` and the other three, scale included: what ``OnKernel`` takes."""
        a1, *rest = self.four()
        return self._scaled(through_weight(weight, a1), *rest)

    def _scaled(self, seen: Tensor, a2: Tensor, b1: Tensor, b2: Tensor, strength: float = 1.0) -> tuple[Tensor, ...]:
        factor = self.options.scale * strength
        return ways.scaled(seen, factor), a2, ways.scaled(b1, factor), b2

    def delta(self, weight: Tensor) -> Tensor:
        return change(*self.parts_of(weight)).view(self.site.weight_shape)

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        a1, *rest = self.four()
        parts = self._scaled(through_layer(base, a1.to(ways.compute_dtype(x))), *rest, strength=strength)
        return self.applied(x, base, parts if self.site.is_spatial else joined(*parts), gain)

    def norm_factors(self) -> None:
        """Without the weight there are none."""

    def factors_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return no_thicker(*joined(*self.parts_of(weight.to(self.a1.dtype))))

    def tensors(self, alpha: float) -> Tensors:
        scale, (a1, a2, b1, b2) = self.options.scale, self.four()
        narrow = (f[:, :, None, None] if self.site.is_conv else f for f in (a1, scale * a2, b1))
        own = dict(zip(LEAVES, (*narrow, self.site.kernel_of(scale * b2)), strict=True))
        return own | {"alpha": torch.tensor(float(len(a2)))}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return plain_tensors(self.site, *self.factors_of(base.weight), alpha)

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> GLoRA:
        own = in_order(tensors)
        rank = own[LEAVES[0]].shape[1]
        self = cls(site, cls.Options(rank=rank, alpha=alpha_of(tensors, rank)))
        with torch.no_grad():
            for leaf, parameter in zip(LEAVES, (self.a1, self.a2, self.b1, self.b2), strict=True):
                flat = {leaf: own[leaf].flatten(1)}
                parameter.copy_(need(flat, leaf, tuple(parameter.shape)))
        return self


def in_order(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's four tensors as ``a1, a2, b1, b2`` of the formula. LyCORIS before 2.0, and A1111 still, have each pair turned
    round; of a square layer's, which fit both, the thinner product is meant.

    Raises:
        AdapterError: one is missing, or they fit together in neither order.
    """
    new = [need_any(dict(tensors), leaf) for leaf in LEAVES]
    orders = (new, [new[1], new[0], new[3], new[2]]) if all(tensor.dim() > 1 for tensor in new) else ()
    fitting = [four for four in orders if len({four[0].shape[1], four[1].shape[0], four[2].shape[1], four[3].shape[0]}) == 1]
    if not fitting:
        raise AdapterError(f"{', '.join(LEAVES)} do not multiply: {', '.join(str(tuple(t.shape)) for t in new)}")
    return dict(zip(LEAVES, min(fitting, key=lambda four: four[1].shape[0]), strict=True))
