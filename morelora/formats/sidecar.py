"""The sidecar form: every adapter in its own tensors, for ``morelora.load``. It alone holds serial adapters.

Keys are kohya's, so that a web UI that is given the file by mistake names the tensors that it cannot use.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from morelora.errors import FormatError
from morelora.formats.names import is_sdxl, kohya
from morelora.formats.readers import READERS, kinds, unread_own
from morelora.inject import AdapterSet

ENTRY = "morelora.readers"
"""Metadata entry: who reads the file, ``notice``."""
NOTICE = "sidecar file: only morelora.load reads it, no web UI does"


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file in float32, by key."""
    sdxl = is_sdxl(adapters.models)
    return {f"{kohya(name, sdxl)}.{leaf}": tensor for name, adapter in adapters for leaf, tensor in adapter.tensors(1.0).items()}


def notice(tensors: Mapping[str, Tensor]) -> str:
    """Which programs read a file of these tensors with the right effect."""
    others = [reader for reader in READERS if reader != "morelora"]
    missing = unread_own(kinds(tensors), others)
    reading = [reader for reader in others if reader not in missing]
    return f"sidecar file: of other programs {', '.join(reading)} read it" if reading else NOTICE


def refuse_unmergeable(adapters: AdapterSet) -> None:
    """Raise ``FormatError`` where an adapter is no change of weights, which the other forms cannot hold."""
    found = [(name, adapter) for name, adapter in adapters if not adapter.mergeable]
    if found:
        name, adapter = found[0]
        raise FormatError(
            f"{name} ({len(found)} such layers) holds a {adapter.name} adapter, which is no change of the weights and which no "
            "other program loads: write the 'sidecar' form, which morelora.load applies"
        )
