"""Every algorithm by name. To add one: a file in ``algorithms/`` and a line here."""

from __future__ import annotations

from morelora.adapter import Adapter
from morelora.algorithms.adalora import AdaLoRA
from morelora.algorithms.additive import Additive
from morelora.algorithms.bitfit import BitFit
from morelora.algorithms.boft import BOFT
from morelora.algorithms.dylora import DyLoRA
from morelora.algorithms.full import Full
from morelora.algorithms.glora import GLoRA
from morelora.algorithms.hadamard import Hadamard
from morelora.algorithms.ia3 import IA3
from morelora.algorithms.krona import KronA
from morelora.algorithms.krona_res import KronARes
from morelora.algorithms.loha import LoHa
from morelora.algorithms.lokr import LoKr
from morelora.algorithms.lora import LoRA
from morelora.algorithms.norm import Norm
from morelora.algorithms.oft import OFT
from morelora.algorithms.serial import Serial
from morelora.algorithms.sora import SoRA
from morelora.algorithms.ssf import SSF
from morelora.algorithms.tied import Tied
from morelora.algorithms.tlora import TLoRA
from morelora.algorithms.vera import VeRA

ALGORITHMS: dict[str, type[Adapter]] = {
    "lora": LoRA,
    "loha": LoHa,
    "lokr": LoKr,
    "hadamard": Hadamard,
    "additive": Additive,
    "krona": KronA,
    "krona_res": KronARes,
    "full": Full,
    "bitfit": BitFit,
    "ssf": SSF,
    "norm": Norm,
    "ia3": IA3,
    "oft": OFT,
    "boft": BOFT,
    "serial": Serial,
    "adalora": AdaLoRA,
    "sora": SoRA,
    "dylora": DyLoRA,
    "tlora": TLoRA,
    "glora": GLoRA,
    "vera": VeRA,
    "tied": Tied,
}
