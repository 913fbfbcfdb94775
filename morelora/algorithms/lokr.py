"""LoKr: a Kronecker product of a small matrix and a (low-rank) block.

Formula     ``W' = W + s * (w1 (x) w2)``, ``w1 (p, q)``, ``w2 (m/p, n/q[, kh, kw])`` full or ``w2_a @ w2_b`` of rank ``r``;
            ``p`` and ``q`` are the divisors of ``m`` and ``n`` nearest to ``factor``. ``s = alpha / r``, but 1 where both
            factors are full: then alpha and rs have no effect, as in LyCORIS and every reader.
Rank        ``rank(w1) * rank(w2)``; with a low-rank ``w2`` exactly a LoRA of rank ``min(p, q) * r``.
Start       ``w1`` uniform (Kaiming), ``w2_a`` uniform, ``w2_b = 0`` (full: ``w2 = 0``): the unchanged model.
Parameters  ``p q + r (m/p + n k^2 / q)``, or ``p q + m n k^2 / (p q)`` for a full ``w2``.
Cost        by reshape, never the product: ``2 N q (r n/q + r p + ...)``, about ``1/p`` of the base layer for a full ``w2``.
Export      ``lokr_w1`` (or ``lokr_w1_a, lokr_w1_b``), ``lokr_w2`` (or ``lokr_w2_a, lokr_w2_b``), ``alpha = r`` with ``s`` folded
            into ``w1``.
Use         the smallest files, for many adapters side by side; ``full_matrix`` where the change is to be of full rank.
Sources     KronA arXiv 2212.10650; LyCORIS arXiv 2309.14859.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Tensors, alpha_of, need, need_any
from morelora.as_lokr import KroneckerAdapter, SplitOptions, split_of
from morelora.errors import AdapterError
from morelora.factors import kron, tucker_down, uniform
from morelora.residual import StartOptions
from morelora.site import Site


class LoKr(KroneckerAdapter):
    """``W + s * kron(w1, w2)``; see the module's docstring."""

    name = "lokr"
    leaves = frozenset({"lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"})
    thick = ("a full-matrix LoKr", "train with full_matrix off and a rank below half of the block's sides")

    class Options(SplitOptions, StartOptions):
        """Settings of LoKr."""

        full_matrix: bool = Field(
            False,
            description="Train the large block whole instead of as a low-rank product; alpha then has no effect, unless "
            "decompose_both makes a product of the small matrix.",
        )
        decompose_both: bool = Field(
            False, description="Also split the small matrix into two factors of the rank, where that is smaller."
        )

    def __init__(
        self, site: Site, options: Options, generator: Generator | None = None, split: tuple[int, int] | None = None
    ) -> None:
        super().__init__(site, options, split or split_of(site, options.factor))
        rank, rows, columns = options.rank, site.m // self.p, site.c // self.q
        low_rank = not options.full_matrix and rank < max(rows, site.n // self.q) / 2
        both = options.decompose_both and rank < max(self.p, self.q) / 2
        self.scale = options.scale if low_rank or both else 1.0
        self.w1 = None if both else nn.Parameter(uniform((self.p, self.q), self.q, generator))
        self.w1_a = nn.Parameter(uniform((self.p, rank), rank, generator)) if both else None
        self.w1_b = nn.Parameter(uniform((rank, self.q), self.q, generator)) if both else None
        self.w2 = None if low_rank else nn.Parameter(torch.zeros(rows, columns))
        self.w2_a = nn.Parameter(uniform((rows, rank), rank, generator)) if low_rank else None
        self.w2_b = nn.Parameter(torch.zeros(rank, columns)) if low_rank else None
        if options.rank_dropout and not low_rank:
            raise AdapterError("rank_dropout has no meaning where LoKr's block is a full matrix: set it to 0")

    @property
    def is_low_rank(self) -> bool:
        """Whether the block is a product of two factors."""
        return self.w2_a is not None

    def remark(self) -> str:
        if self.is_low_rank:
            return ""
        if self.options.full_matrix:
            return "" if self.w1 is None else "both matrices are trained whole: alpha has no effect, the scale is 1"
        return "the block is so small beside the rank that it is trained whole, where alpha has no effect"

    @property
    def small(self) -> Tensor:
        return ways.scaled(self.w1 if self.w1 is not None else self.w1_a @ self.w1_b, self.scale)

    @property
    def block(self) -> Tensor:
        return self.w2 if self.w2 is not None else self.w2_a @ self.w2_b

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.w2 if self.w2_b is None else self.w2_b]

    def factors(self) -> tuple[Tensor, Tensor] | None:
        if self.w2_a is None:
            return None
        small = self.small
        if self.q <= self.p:
            return kron(small, self.w2_a), kron(torch.eye(self.q).to(small), self.w2_b)
        return kron(torch.eye(self.p).to(small), self.w2_a), kron(small, self.w2_b)

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        small = ways.scaled(self.small, strength)
        return (small, self.w2) if self.w2 is not None else (small, self.w2_a, self.w2_b)

    def tensors(self, alpha: float) -> Tensors:
        out = {f"lokr_{name}": parameter for name, parameter in self.named_parameters()}
        first = "lokr_w1" if self.w1 is not None else "lokr_w1_a"
        out[first] = out[first] * self.scale
        if self.w2 is not None:
            out["lokr_w2"] = self.whole_block()
        return out | {"alpha": torch.tensor(float(self.options.rank))}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> LoKr:
        tensors = _without_tucker(tensors)
        rows = [tensors[leaf].shape[0] for leaf in ("lokr_w1", "lokr_w1_a") if leaf in tensors]
        columns = [tensors[leaf].shape[1] for leaf in ("lokr_w1", "lokr_w1_b") if leaf in tensors]
        if 0 in (*rows, *columns) or not rows or not columns or site.m % rows[0] or site.n % columns[0]:
            raise AdapterError(f"lokr_w1 does not divide this layer's {site.m} x {site.n} weight")
        ranks = [len(tensors[leaf]) for leaf in ("lokr_w2_b", "lokr_w1_b") if leaf in tensors]
        rank = next(iter(ranks), 1)
        options = cls.Options(
            rank=rank, alpha=alpha_of(tensors, rank), full_matrix="lokr_w2" in tensors, decompose_both="lokr_w1_b" in tensors
        )
        self = cls(site, options, split=(rows[0], columns[0]))
        with torch.no_grad():
            for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b"):
                tensor = tensors.get(f"lokr_{name}")
                setattr(self, name, None if tensor is None else nn.Parameter(tensor.flatten(1).float().clone()))
        self.scale = options.scale if ranks else 1.0
        small, block = _size("lokr_w1", self.w1, self.w1_a, self.w1_b), _size("lokr_w2", self.w2, self.w2_a, self.w2_b)
        if (small[0] * block[0], small[1] * block[1]) != (site.m, site.c):
            raise AdapterError(f"the lokr tensors do not multiply to this layer's weight {site.weight_shape}")
        return self


def _size(name: str, whole: Tensor | None, left: Tensor | None, right: Tensor | None) -> tuple[int, int]:
    """Rows and columns of a matrix that a file holds whole or as two factors."""
    if whole is not None:
        return len(whole), whole.shape[1]
    if left is None or right is None or left.shape[1] != len(right):
        raise AdapterError(f"{name} is missing, and {name}_a and {name}_b have no product")
    return len(left), right.shape[1]


def _without_tucker(tensors: Tensors) -> Tensors:
    """LyCORIS' Tucker block ``lokr_t2 (r, r, kh, kw)`` folded into an ordinary low-rank one."""
    if "lokr_t2" not in tensors:
        return tensors
    core, left = tensors["lokr_t2"], need_any(tensors, "lokr_w2_a")
    right = need(tensors, "lokr_w2_b", (core.shape[1], None))
    rest = {leaf: tensor for leaf, tensor in tensors.items() if leaf != "lokr_t2"}
    return rest | {"lokr_w2_a": left.T, "lokr_w2_b": tucker_down(core.float(), right.float())}
