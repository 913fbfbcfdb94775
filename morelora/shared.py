"""Tensors that layers have in common: one object in all of them, which trains once, counts once and is saved once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from morelora.adapter import Adapter

T = TypeVar("T", bound=Tensor)


class Shared:
    """What the first layer of each kind and shape gives to those that come after it."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Tensor] = {}

    def join(self, adapter: Adapter, kind: Hashable) -> Adapter:
        """``adapter`` with the tensors of ``Adapter.shared`` that the first one of its kind and of its weight's shape has."""
        own = adapter.plain
        for name in own.shared:
            place = (kind, own.site.weight_shape, name)
            setattr(own, name, self._first.setdefault(place, getattr(own, name)))
        return adapter


def once(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Each tensor with the first of its names."""
    seen: set[int] = set()
    for name, tensor in named:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor
