"""The sidecar form: every adapter in its own tensors, for ``morelora.load`` alone. It alone holds serial adapters.

Keys are kohya's, so that a web UI that is given the file by mistake names the tensors that it cannot use.
"""

from __future__ import annotations

from torch import Tensor

from morelora.errors import FormatError
from morelora.formats.names import is_sdxl, kohya
from morelora.inject import AdapterSet

READERS = "morelora.readers"
NOTICE = "sidecar file: only morelora.load reads it, no web UI does"
"""Stands in the file's metadata under ``READERS``."""


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file in float32, by key."""
    sdxl = is_sdxl(adapters.models)
    return {f"{kohya(name, sdxl)}.{leaf}": tensor for name, adapter in adapters for leaf, tensor in adapter.tensors(1.0).items()}


def refuse_unmergeable(adapters: AdapterSet) -> None:
    """Raise ``FormatError`` where an adapter is no change of weights, which the other forms cannot hold."""
    found = [(name, adapter) for name, adapter in adapters if not adapter.mergeable]
    if found:
        name, adapter = found[0]
        raise FormatError(
            f"{name} ({len(found)} such layers) holds a {adapter.name} adapter, which is no change of the weights and which no "
            "other program loads: write the 'sidecar' form, which morelora.load applies"
        )
