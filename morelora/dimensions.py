"""How many dimensions a tensor of a file has, by its leaf name: files are foreign, so it is checked first."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from morelora.errors import AdapterError

DIMENSIONS: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"lora_(up|down)\.weight|lokr_w2(_[ab])?|[ab][12]\.weight", (2, 4)),
    (r"lora_mid\.weight|hada_t\d|lokr_t2", (4,)),
    (r"hada_w\d_[ab]|lokr_w1(_[ab])?|krona_w\d", (2,)),
)
SINGLE = re.compile(r"alpha|on_input|serial_function|krona_gamma")
"""Leaves that hold one number."""
BESIDE = re.compile(r"^(start|moved)\.")
"""Before the names of an algorithm's tensors in a file of its start (``morelora/residual.py``)."""


def check_dimensions(tensors: Mapping[str, Tensor]) -> None:
    """Raise ``AdapterError`` where a tensor has not as many dimensions as its leaf name says, or none."""
    for leaf, tensor in tensors.items():
        name = BESIDE.sub("", leaf)
        allowed = next((allowed for pattern, allowed in DIMENSIONS if re.fullmatch(pattern, name)), range(1, 7))
        fits = tensor.numel() == 1 if SINGLE.fullmatch(name) else tensor.dim() in allowed
        if not fits:
            raise AdapterError(f"{leaf} has shape {tuple(tensor.shape)}, which no such tensor has: the file is damaged")
