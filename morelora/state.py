"""Trained tensors back from where they were kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from morelora.errors import AdapterError


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], whose: str) -> None:
    """Copy ``state`` into ``own``. Raises ``AdapterError`` naming the tensors that are missing, left over or misshapen."""
    wrong = own.keys() ^ state.keys()
    wrong |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
    if wrong:
        raise AdapterError(f"the state does not fit {whose}: {', '.join(sorted(wrong)[:5])} ({len(wrong)} in all)")
    for name, parameter in own.items():
        parameter.copy_(state[name])
