"""BOFT: rotations of the outputs in butterfly stages, so that every output reaches every other.

Formula     ``W' = s * P_last^T R_last P_last ... P_0^T R_0 P_0 W``: stage ``i`` rotates blocks of ``b`` rows that lie
            ``2^i b / 2`` apart; each block is ``R = (I + Q)(I - Q)^-1``, ``Q = B - B^T``. COFT: ``||Q|| <= constraint * m`` over
            all stages. ``s = 1`` unless ``rescale`` is on. The bias stays.
Start       ``B = 0``, ``s = 1``: the unchanged model.
Parameters  ``S m b`` for ``S = log2(m / b) + 1`` stages; ``rescale``: ``m`` more. ``b`` is even with ``m / b`` a power of two.
Cost        ``2 N m b S`` on the outputs, or ``2 m c b S`` on the weight, whichever is cheaper; backward keeps no stage.
Strength    ``W + t (W' - W)`` as everywhere here; A1111, ComfyUI and LyCORIS move each stage instead, the same at 0 and 1.
Export      ``oft_blocks (S, m/b, b, b)`` with the constraint folded in, an ``alpha`` that does not act, ``rescale``: LyCORIS,
            A1111, ComfyUI. With weight decomposition dense ``diff``.
Use         as oft, where every output shall reach every other; for several times its operations and numbers.
Sources     BOFT arXiv 2311.06243; LyCORIS arXiv 2309.14859.
"""

from __future__ import annotations

from torch import Tensor

from morelora.errors import AdapterError
from morelora.rotation import Rotation, Stages
from morelora.site import Site


class BOFT(Rotation):
    """Butterfly stages of rotations; see the module's docstring."""

    name = "boft"
    block_axes = 4
    thick = ("a rotation", "train with adapter.algorithm = 'lora'")

    @classmethod
    def shape_for(cls, site: Site, block_size: int) -> tuple[int, ...]:
        sizes = _sizes(site.m)
        if not sizes:
            raise AdapterError(f"boft needs an even number of outputs, and this layer has {site.m}")
        size = max((size for size in sizes if size <= block_size), default=min(sizes))
        count = site.m // size
        return count.bit_length(), count, size, size

    @classmethod
    def suits(cls, site: Site) -> bool:
        return super().suits(site) and bool(_sizes(site.m))

    @staticmethod
    def stages(turns: Tensor) -> Stages:
        return Stages(turns, tuple(2**index * turns.shape[-1] // 2 for index in range(len(turns))))

    def remark(self) -> str:
        size = self.oft_blocks.shape[-1]
        return f"its blocks have {size} rows, the smallest that fit" if size > self.options.block_size else ""


def _sizes(outputs: int) -> list[int]:
    """Even block sizes that divide ``outputs`` a power of two times."""
    return [outputs >> power for power in range(outputs.bit_length()) if outputs % 2**power == 0 and outputs >> power & 1 == 0]
