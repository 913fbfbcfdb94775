"""KronA: a Kronecker product of two whole matrices.

Formula     ``W' = W + s * (w1 (x) w2)``, ``w1 (p, q)``, ``w2 (m/p, n/q[, kh, kw])``; ``p`` and ``q`` are the divisors of ``m``
            and ``n`` nearest to ``factor``. ``s = scale`` is set, and no rank divides it.
Rank        ``rank(w1) * rank(w2)``, as a rule full.
Start       ``w1`` uniform (Kaiming), ``w2 = 0``: the unchanged model.
            Also ``residual`` (``morelora/residual.py``): all random, less what they make; then its file is dense.
Parameters  ``p q + m n k^2 / (p q)``; least where ``p q`` is near the root of ``m n k^2`` (``factor = -1``).
Cost        by reshape, never the product: about ``1/p`` of the base layer.
Export      a full-matrix LoKr, ``lokr_w1`` with ``s`` folded in and ``lokr_w2``; exact. Read back it is a LoKr.
Use         a change of full rank without a rank to choose, in a small file.
Source      KronA^B of arXiv 2212.10650.
"""

from __future__ import annotations

import torch

from morelora.adapter import Tensors
from morelora.as_lokr import Whole, WholeOptions


class KronA(Whole):
    """``W + s * kron(w1, w2)``; see the module's docstring."""

    name = "krona"
    leaves = frozenset()
    filed_as = "lokr"
    thick = ("a Kronecker product of whole matrices", "train with adapter.algorithm = 'lokr'")

    class Options(WholeOptions):
        """Settings of KronA."""

    def tensors(self, alpha: float) -> Tensors:
        return {"lokr_w1": self.small, "lokr_w2": self.whole_block(), "alpha": torch.tensor(1.0)}
