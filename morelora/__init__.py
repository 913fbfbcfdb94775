"""Adapters for diffusion models as mathematics: LoRA, LoHa, LoKr, weight decomposition; files that real clients load."""

from morelora.adapter import Adapter
from morelora.errors import AdapterError, FormatError, MoreLoraError
from morelora.inject import AdapterSet, attach, inject
from morelora.registry import ALGORITHMS
from morelora.targets import AdapterConfig, Rule, Target, resolve

__all__ = [
    "ALGORITHMS",
    "Adapter",
    "AdapterConfig",
    "AdapterError",
    "AdapterSet",
    "FormatError",
    "MoreLoraError",
    "Rule",
    "Target",
    "attach",
    "inject",
    "resolve",
]
