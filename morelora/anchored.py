"""Adapters that hold the start which is taken off their change themselves, since it is not the same one in every step.

``morelora/residual.py`` takes a start off the weight once and for all. A rank that is gated, or left out of a step, must leave
the unchanged model too: there the start goes with it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class Anchored(nn.Module):
    """Frozen copies ``<name>0`` of the parameters ``anchors``, once ``anchor`` was called; checkpoints hold them."""

    anchors: ClassVar[tuple[str, ...]]

    def anchor(self) -> Any:
        """The values as they are become the start; itself."""
        for name in self.anchors:
            self.register_buffer(f"{name}0", getattr(self, name).detach().clone())
        return self

    @property
    def is_anchored(self) -> bool:
        """Whether there is a start other than the algorithm's own."""
        return f"{self.anchors[0]}0" in self._buffers

    def at_start(self) -> tuple[Tensor, ...]:
        """The copies, in the order of ``anchors``."""
        return tuple(getattr(self, f"{name}0") for name in self.anchors)
