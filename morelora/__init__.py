"""Adapters for diffusion models as mathematics: LoRA, LoHa, LoKr, DoRA; and files that real clients load."""

from morelora.adapter import Adapter
from morelora.embedding import EmbeddingSet, attach_vectors
from morelora.errors import AdapterError, FormatError, MoreLoraError, UnreadTensorsWarning
from morelora.inject import AdapterSet, attach, inject
from morelora.load import load, load_embedding
from morelora.registry import ALGORITHMS
from morelora.targets import AdapterConfig, Rule, Target, resolve

__all__ = [
    "ALGORITHMS",
    "Adapter",
    "AdapterConfig",
    "AdapterError",
    "AdapterSet",
    "EmbeddingSet",
    "FormatError",
    "MoreLoraError",
    "Rule",
    "Target",
    "UnreadTensorsWarning",
    "attach",
    "attach_vectors",
    "inject",
    "load",
    "load_embedding",
    "resolve",
]
