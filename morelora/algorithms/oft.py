"""Diag-OFT: a rotation of the outputs in separate blocks, as LyCORIS and kohya have it.

Formula     ``W' = s * blockdiag(R_1 ... R_k)^T W``, ``R = (I + Q)(I - Q)^-1``, ``Q = B - B^T`` (Cayley); norms and angles
            between the outputs of a block stay. COFT: ``||Q|| <= constraint * m`` over the layer. ``s = 1`` unless
            ``rescale`` is on. The bias stays.
Start       ``B = 0``, ``s = 1``: the unchanged model.
Parameters  ``m b`` for blocks of ``b`` rows, of which ``m (b - 1) / 2`` are free; ``rescale``: ``m`` more. ``b`` is the divisor
            of ``m`` nearest to ``block_size`` that is at most its root.
Cost        ``2 N m b`` on the outputs, or ``2 m c b`` on the weight, whichever is cheaper.
Export      ``oft_blocks (m/b, b, b)`` with the constraint folded in and an ``alpha`` that does not act: LyCORIS, A1111, ComfyUI.
            With ``rescale`` or weight decomposition dense ``diff``, since ComfyUI reads neither right beside blocks.
            peft's OFT rotates the input: another algorithm.
Use         what the base knows is to stay: norms and angles within a block are kept, so that it drifts little in a long training.
Sources     OFT arXiv 2306.07280; LyCORIS arXiv 2309.14859.
"""

from __future__ import annotations

from torch import Tensor, nn

from morelora.adapter import Tensors
from morelora.errors import AdapterError
from morelora.factors import divisors_near
from morelora.rotation import Rotation, Stages
from morelora.site import Site


class OFT(Rotation):
    """``blockdiag(R)^T W``; see the module's docstring."""

    name = "oft"
    block_axes = 3
    thick = ("a rotation", "train with adapter.algorithm = 'lora'")

    @classmethod
    def shape_for(cls, site: Site, block_size: int) -> tuple[int, ...]:
        size = divisors_near(site.m, block_size)[0]
        if size == 1:
            size = divisors_near(site.m)[0]
        if size == 1:
            raise AdapterError(f"oft needs outputs that fall into blocks, and {site.m} is a prime number")
        return site.m // size, size, size

    @classmethod
    def suits(cls, site: Site) -> bool:
        return super().suits(site) and divisors_near(site.m)[0] > 1

    @staticmethod
    def stages(turns: Tensor) -> Stages:
        return Stages(turns.mT[None], (0,))

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return self.dense_where_scaled(base, alpha)
