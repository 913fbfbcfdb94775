"""Every algorithm by name. To add one: a file in ``algorithms/`` and a line here."""

from __future__ import annotations

from morelora.adapter import Adapter
from morelora.algorithms.full import Full
from morelora.algorithms.loha import LoHa
from morelora.algorithms.lokr import LoKr
from morelora.algorithms.lora import LoRA

ALGORITHMS: dict[str, type[Adapter]] = {
    "lora": LoRA,
    "loha": LoHa,
    "lokr": LoKr,
    "full": Full,
}
