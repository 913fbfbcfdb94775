"""What an algorithm does between the steps of a training, over all its adapters together: a budget, a threshold, a rank.

The training loop knows ``Procedures`` alone and calls them in each step: ``batch`` before a micro step's forward pass,
``penalty`` after the last backward pass, ``stepped`` after the optimiser. What they keep from step to step goes through
``state`` into the checkpoints. None of them may wait for the device: what decides lies in tensors, or follows from the number
of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from morelora.errors import AdapterError

if TYPE_CHECKING:
    from morelora.adapter import Adapter

Rates = Callable[[], Mapping[nn.Parameter, float]]
"""Gives the learning rate that each parameter's last step was made with."""


@dataclass(frozen=True)
class Stepped:
    """A step of the optimiser, from 1."""

    number: int
    rates: Rates
    is_made: Tensor | None = None
    """On the device, whether fp16's scaler let it be made; None without a scaler. If not, the gradients are not finite."""


@dataclass(frozen=True)
class Search:
    """Forms of the finished adapters, of which the smallest is kept that loses little."""

    on: str
    """Whose loss decides: ``held_out`` or ``training`` pictures."""
    tolerance: float
    """Share by which it may lie above the lowest one."""
    choices: Mapping[int, str]
    """What ``Procedure.choose`` takes, the smallest form first, and its name."""


class Procedure:
    """One algorithm's part in the training. The base class takes none; a subclass overrides what it needs."""

    rewrites: ClassVar[bool] = False
    """Whether it sets trained values itself after a step, which an average or a second copy of them would not follow."""

    reads_gradients: ClassVar[bool] = False
    """Whether ``stepped`` looks at the gradients of the step."""

    patience: int = 3
    """Steps after which every trained tensor must have had a gradient (LoHa's others wait for its zero factor)."""

    def __init__(self, adapters: Mapping[str, Adapter], steps: int) -> None:
        self.adapters = dict(adapters)
        self.steps = steps

    def shared(self, *names: str) -> Any:
        """The options of the first layer, of which these must be the same in all. Raises ``AdapterError`` where they are not."""
        (_, first), *others = self.adapters.items()
        for name, adapter in others:
            for option in names:
                ours, theirs = getattr(first.options, option), getattr(adapter.options, option)
                if ours != theirs:
                    what = f"{option} is one for all layers of {first.name}, but {ours!r} and {theirs!r} are asked for"
                    raise AdapterError(f"{name}: {what}: set it beside the algorithm, not in a rule")
        return first.options

    def batch(self, t: Tensor, total: int) -> None:
        """Before a micro step; ``t (B,)`` are its pictures' timesteps on the device, out of ``0 .. total - 1``."""

    def penalty(self) -> Tensor | None:
        """What is added to the loss of each step; None for nothing."""
        return None

    def stepped(self, step: Stepped) -> None:
        """After a step of the optimiser; the gradients are still there."""

    def rehearse(self) -> None:
        """Before the steps that a run is estimated by, which leave no trace: take the largest form of the whole run."""

    @property
    def search(self) -> Search | None:
        """What is to be tried out after the last step; None for nothing."""
        return None

    def choose(self, choice: int) -> None:
        """Let the finished adapters take one of the forms of ``search``."""

    def state(self) -> dict[str, Tensor]:
        """What it keeps from step to step, for checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave, bit for bit."""


class Procedures:
    """The procedures of a run by name, as one."""

    def __init__(self, parts: Mapping[str, Procedure] | None = None) -> None:
        self.parts = dict(parts or {})

    @classmethod
    def of(cls, adapters: Mapping[str, Adapter], steps: int) -> Procedures:
        """Those that the adapters' algorithms have, over ``steps`` steps. Raises ``AdapterError`` where options differ."""
        named: dict[str, dict[str, Adapter]] = {}
        for name, adapter in adapters.items():
            if adapter.plain.procedure is not None:
                named.setdefault(adapter.plain.name, {})[name] = adapter.plain
        made = {algorithm: next(iter(held.values())).procedure for algorithm, held in named.items()}
        return cls({algorithm: kind(named[algorithm], steps) for algorithm, kind in made.items() if kind is not None})

    def __iter__(self) -> Iterator[tuple[str, Procedure]]:
        return iter(self.parts.items())

    @property
    def patience(self) -> int:
        """Steps after which every trained tensor must have had a gradient."""
        return max((part.patience for part in self.parts.values()), default=Procedure.patience)

    def batch(self, t: Tensor, total: int) -> None:
        """Before a micro step."""
        for part in self.parts.values():
            part.batch(t, total)

    def penalty(self) -> Tensor | None:
        """The sum of what is added to the loss of each step."""
        found = [term for part in self.parts.values() if (term := part.penalty()) is not None]
        return torch.stack(found).sum() if found else None

    @torch.no_grad()
    def stepped(self, step: Stepped) -> None:
        """After a step of the optimiser."""
        for part in self.parts.values():
            part.stepped(step)

    @torch.no_grad()
    def rehearse(self) -> None:
        """Before the steps that a run is estimated by."""
        for part in self.parts.values():
            part.rehearse()

    def state(self) -> dict[str, Tensor]:
        """What they keep, by ``<procedure>/<name>``."""
        return {f"{name}/{key}": tensor for name, part in self.parts.items() for key, tensor in part.state().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        for name, part in self.parts.items():
            prefix = f"{name}/"
            part.load_state({key.removeprefix(prefix): held for key, held in state.items() if key.startswith(prefix)})
