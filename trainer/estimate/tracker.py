"""The peak of live memory while shapes alone are computed, on the meta device: no weight and no activation exists."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakTracker(TorchDispatchMode):
    """Counts every storage that operations make inside, from its birth to its death; ``peak`` is the most at once, in bytes."""

    def __init__(self, existing: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in existing}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention keeps ``q``, ``k``, ``v`` and its output, as fused kernels do.

    On the meta device it would keep the whole table of positions by positions. The function itself is exchanged, since
    recomputation in a backward pass (gradient checkpointing) sees no mode of the forward one.
    """
    own = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, *args, **options: _Attention.apply(q, k, v)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


class _Attention(torch.autograd.Function):
    """Shapes and memory of attention, and nothing of its values."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def peak_of(step: Callable[[], Tensor], models: Iterable[nn.Module]) -> int:
    """The most bytes that ``step`` holds beside the models' own tensors, with the backward pass of what it returns, if any."""
    existing = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    with fused_attention(), PeakTracker(existing) as tracker:
        made = step()
        if made.requires_grad:
            made.backward()
    return tracker.peak
