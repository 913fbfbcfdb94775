"""ReLoRA: a low-rank adapter that begins again and again, on top of what its earlier cycles learnt.

Formula     ``W' = W + D_1 + ... + D_(k-1) + D_k``: the changes of finished cycles, frozen, and the one that trains.
Restart     ``D_k`` joins the finished ones, and the adapter inside takes a fresh start of no change: ``pissa`` and ``olora`` of
            the weight as it then is.
Kept        ``stack``: as factors beside the weight, which stays as it is. ``merge``: also written into the frozen weight, so that
            a step costs what the adapter inside costs; the weight's own bits are kept aside and come back. Until then other
            strengths than 1, 0 too, take the difference off beside it, exact to rounding.
Rank        ``k`` times that of the adapter inside; a file has at most the layer's smaller side.
Parameters  those of the adapter inside.
Cost        ``stack``: ``2 N (k - 1) r (m + c)`` more in the forward pass; ``merge``: nothing.
Export      plain LoRA: ``[up_1 ... up_k]``, ``[down_1; ... down_k]``, or the QR factors of their product; exact on
            the weight as it was.
Source      ReLoRA arXiv 2307.05695.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Adapter, RankOptions
from morelora.as_lora import AsLoRA
from morelora.errors import AdapterError
from morelora.factors import no_thicker
from morelora.residual import Residual, started
from morelora.state import copy_state


class Restarted(AsLoRA):
    """Finished cycles and an adapter that trains; see the module's docstring."""

    limits_norm = False

    def __init__(self, inner: Adapter) -> None:
        why = ""
        if inner.plain is not inner:
            why = "weight decomposition has magnitudes, which do not add up"
        elif inner.shared:
            why = f"layers share the factors of {inner.name}, and a cycle begins again layer by layer"
        elif inner.procedure is not None:
            why = f"{inner.name} has a course of its own over the steps"
        elif not isinstance(inner.options, RankOptions) or inner.factors() is None:
            why = f"{inner.name} is not low-rank here, so that its cycles have no factors to be kept as"
        if why:
            raise AdapterError(f"relora does not go together with this: {why}; use algorithm = 'lora'")
        super().__init__(inner.site, inner.options)
        self.inner = inner
        self.stack: tuple[Tensor, Tensor] | None = None
        """The factors of all finished cycles."""
        self.original: Tensor | None = None
        """The frozen weight as it was before any cycle was written into it, off the device."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner algorithm's name."""
        return self.inner.name

    @property
    def current(self) -> Adapter:
        return self.inner

    @property
    def is_folded(self) -> bool:
        return self.original is not None

    @property
    def cycle(self) -> int:
        """The number of the cycle that trains, from 1."""
        return 1 if self.stack is None else 1 + len(self.stack[1]) // len(self._inner_factors()[1])

    def zero_factors(self) -> list[nn.Parameter]:
        return self.inner.zero_factors()

    def remark(self) -> str:
        return self.inner.remark()

    def factors(self) -> tuple[Tensor, Tensor]:
        up, down = self._inner_factors()
        return (up, down) if self.stack is None else (torch.cat((self.stack[0], up), 1), torch.cat((self.stack[1], down)))

    def thin_factors(self) -> tuple[Tensor, Tensor]:
        """No thicker than the layer, however many the cycles: readers refuse such ranks."""
        return no_thicker(*self.factors())

    def _inner_factors(self) -> tuple[Tensor, Tensor]:
        found = self.inner.factors()
        assert found is not None, "checked at the start"
        return found

    def is_skipped(self) -> bool:
        """Never as a whole: module dropout is of the adapter inside."""
        return False

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        y = base(x) if strength == 0.0 or self.inner.is_skipped() else self.inner(x, base, strength)
        share = strength - self.is_folded
        if self.stack is None or share == 0.0:
            return y
        dtype = ways.compute_dtype(x)
        up, down = (factor.to(dtype) for factor in self.stack)
        return y + self.way.branch(x.to(dtype), ways.scaled(up, share), down)

    def unfolded(self, weight: Tensor) -> Tensor:
        return weight if self.original is None else self.original.to(weight.device)

    @torch.no_grad()
    def restart(self, base: nn.Module, generator: Generator, fold: bool) -> None:
        """End a cycle: its change joins the finished ones, with ``fold`` in the weight of ``base`` too."""
        self._finish(base, *self._inner_factors(), fold)
        up, down = self.stack
        now = base.weight if self.is_folded else base.weight + (up @ down).to(base.weight.dtype).view(base.weight.shape)
        copy_state(self.inner.state_dict(), _anew(self.inner, now, generator).state_dict(), "the cycle that begins")

    @torch.no_grad()
    def resume(self, base: nn.Module, stack: tuple[Tensor, Tensor] | None, fold: bool) -> None:
        """Have exactly these finished cycles, one after the other as they came; None for none."""
        self.leave(base)
        self.stack = None
        if stack is not None:
            rank = len(self._inner_factors()[1])
            for up, down in zip(stack[0].split(rank, 1), stack[1].split(rank), strict=True):
                self._finish(base, up.contiguous(), down, fold)

    def _finish(self, base: nn.Module, up: Tensor, down: Tensor, fold: bool) -> None:
        if fold:
            self.original = base.weight.detach().to("cpu", copy=True) if self.original is None else self.original
            base.weight.add_((up @ down).view(self.site.weight_shape))
        held = (up[:, :0], down[:0]) if self.stack is None else self.stack
        self.stack = torch.cat((held[0], up), 1), torch.cat((held[1], down))

    @torch.no_grad()
    def leave(self, base: nn.Module) -> None:
        if self.original is not None:
            base.weight.copy_(self.original)
            self.original = None


def _anew(adapter: Adapter, weight: Tensor, generator: Generator) -> Adapter:
    """Another of the same kind and start, for a layer with this weight."""
    algorithm = type(adapter.inner if isinstance(adapter, Residual) else adapter)
    fresh = algorithm(adapter.site, adapter.options, generator)
    fresh.meet(weight)
    return started(fresh, weight, generator)
