"""The work of a training step from shapes alone, in the cost model's unit: operations of products, and numbers through memory.

``morelora.cost`` chooses between the forms of a change by it. Here the same two things are counted while a step runs on the meta
device, so that every algorithm is counted alike, one that no formula is written for too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from morelora.analysis.costs import IN_PLACE
from morelora.cost import BALANCE
from trainer.estimate.tracker import fused_attention

ATTENTION = 4 + 10
"""Operations of attention for each number of ``q`` and each key: two products forward, five backward."""
UPDATE = 7 * BALANCE
"""Of AdamW for each number that trains: it reads value, gradient and both moments, and writes all but the gradient."""


class Tally(TorchDispatchMode):
    """Counts what runs inside: ``work`` is operations of products and, ``BALANCE`` times, numbers read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.work = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not (func.is_view or func is torch.ops.aten.detach.default):
            self.work += _operations(func._overloadpacket, args, kwargs, made)
            self.work += BALANCE * sum(leaf.numel() for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor))
        return made


def work_of(step: Callable[[], Tensor]) -> int:
    """Of ``step``, and of the backward pass of what it returns where that has one."""
    with Tally() as tally, _attention(tally):
        made = step()
        if made.requires_grad:
            made.backward(torch.empty_like(made))
    return tally.work


def _operations(packet: Any, args: Any, kwargs: Any, made: Any) -> int:
    """Of a product; 0 for anything else."""
    if packet in IN_PLACE:
        return int(IN_PLACE[packet](*(each.shape for each in args if isinstance(each, Tensor))))
    return int(flop_registry[packet](*args, **kwargs, out_val=made)) if packet in flop_registry else 0


@contextmanager
def _attention(tally: Tally) -> Iterator[None]:
    """Inside, attention counts its products, and takes no table of positions by positions."""
    with fused_attention():
        fused = F.scaled_dot_product_attention

        def counted(q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
            tally.work += ATTENTION * q.numel() * k.shape[-2]
            return fused(q, k, v)

        F.scaled_dot_product_attention = counted
        yield
