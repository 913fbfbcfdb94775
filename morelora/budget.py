"""A budget of ranks that all layers share and that shrinks while they train: AdaLoRA's allocation.

A layer's rank ``i`` is the triplet of column ``i`` of ``up``, number ``i`` of ``gate`` and row ``i`` of ``down``. Of all layers'
triplets the ``b(t)`` most important ones keep their gate; the others' is set to zero, from which it may come back until the
budget stands. With ``b0`` ranks at first and ``bT`` at last,

    b(t) = b0 to ``prune_from``,    bT + (b0 - bT) (1 - p)^3 between, p = 0 .. 1,    bT from ``prune_until`` on.

The importance of a triplet is that of its gate plus the means of those of its column and its row. Of one number ``w`` with
gradient ``g``: ``magnitude`` ``|gate|`` alone; ``sensitivity`` ``|w g|`` of the last step; ``smoothed`` ``I U`` with the averages
``I <- b1 I + (1 - b1) |w g|`` and ``U <- b2 U + (1 - b2) ||w g| - I|``.
Source: AdaLoRA arXiv 2303.10512, section 3; steps are counted as in its authors' code and in peft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from morelora.adapter import Adapter
from morelora.gated import Gated
from morelora.procedure import Procedure, Stepped

LEAVES = ("up", "gate", "down")


class Budget(Procedure):
    """Shares out ranks among layers of ``Gated`` adapters; see the module's docstring."""

    rewrites = True
    reads_gradients = True
    adapters: dict[str, Gated]

    def __init__(self, adapters: Mapping[str, Adapter], steps: int) -> None:
        super().__init__(adapters, steps)
        self.options = self.shared(
            "importance", "beta1", "beta2", "orthogonality", "prune_from", "prune_until", "prune_every"
        )  # fmt: skip
        self.full = sum(adapter.options.rank for adapter in self.adapters.values())
        self.target = sum(adapter.options.final_rank for adapter in self.adapters.values())
        self.first = round(self.options.prune_from * steps)
        self.last = min(round(self.options.prune_until * steps), steps - 1)  # the last step has the last budget
        self.gates = [adapter.gate for adapter in self.adapters.values()]
        self.masks = [torch.ones_like(gate) for gate in self.gates]
        self.numbers = [getattr(adapter, leaf) for adapter in self.adapters.values() for leaf in LEAVES]
        kinds = {"magnitude": 0, "sensitivity": 1, "smoothed": 2}[self.options.importance]
        self.averages = [[torch.zeros_like(number) for number in self.numbers] for _ in range(kinds)]

    def budget(self, step: int) -> int:
        """Ranks that all layers together have after a step."""
        if step <= self.first:
            return self.full
        left = max(0.0, 1 - (step - self.first) / max(1, self.last - self.first))
        return int((self.full - self.target) * left**3 + self.target)

    def penalty(self) -> Tensor | None:
        """``orthogonality`` times the mean of ``||up^T up - 1||`` and ``||down down^T - 1||`` (Frobenius) over the layers."""
        if not self.options.orthogonality:
            return None
        grams = [gram for a in self.adapters.values() for gram in (a.up.T @ a.up, a.down @ a.down.T)]
        ones = {gram.shape: torch.eye(len(gram), dtype=gram.dtype, device=gram.device) for gram in grams}
        norms = [torch.linalg.matrix_norm(gram - ones[gram.shape]) for gram in grams]
        return self.options.orthogonality * torch.stack(norms).mean()

    def stepped(self, step: Stepped) -> None:
        number = step.number
        if number < self.last and self.averages:
            self._learn(step.is_made)
        is_allocated = number == self.last + 1 or (self.first < number <= self.last and number % self.options.prune_every == 0)
        if is_allocated:
            self._allocate(self.full - self.budget(number))
        if is_allocated or number > self.last:
            torch._foreach_mul_(self.gates, self.masks)

    def _learn(self, is_made: Tensor | None) -> None:
        """Take the step's gradients into the averages."""
        mean, *spread = self.averages
        now = torch._foreach_abs(torch._foreach_mul(self.numbers, [number.grad for number in self.numbers]))
        now = _if_made(is_made, now, mean)
        torch._foreach_lerp_(mean, now, 1 - self.options.beta1 if spread else 1.0)
        if spread:
            off = torch._foreach_abs(torch._foreach_sub(now, mean))
            torch._foreach_lerp_(spread[0], _if_made(is_made, off, spread[0]), 1 - self.options.beta2)

    def scores(self) -> list[Tensor]:
        """The importance of each layer's triplets, ``(r,)``."""
        if not self.averages:
            return [gate.abs() for gate in self.gates]
        mean, *spread = self.averages
        each = torch._foreach_mul(mean, spread[0]) if spread else mean
        triplets = zip(each[0::3], each[1::3], each[2::3], strict=True)
        return [gate + up.mean(0) + down.mean(1) for up, gate, down in triplets]

    def _allocate(self, surplus: int) -> None:
        """Mask the ``surplus`` least important triplets, and what is exactly as important as the last of them."""
        scores = self.scores()
        if not surplus:
            torch._foreach_copy_(self.masks, [torch.ones_like(score) for score in scores])
            return
        threshold = torch.cat(scores).kthvalue(surplus).values
        torch._foreach_copy_(self.masks, [(score > threshold).to(score.dtype) for score in scores])

    def _named(self) -> dict[str, Tensor]:
        found = {f"{name}.mask": mask for name, mask in zip(self.adapters, self.masks, strict=True)}
        names = [f"{name}.{leaf}" for name in self.adapters for leaf in LEAVES]
        for kind, average in zip(("mean", "spread"), self.averages, strict=False):
            found |= {f"{name}.{kind}": tensor for name, tensor in zip(names, average, strict=True)}
        return found

    def state(self) -> dict[str, Tensor]:
        return self._named()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._named().items():
            tensor.copy_(state[name])


def _if_made(is_made: Tensor | None, new: Sequence[Tensor], old: list[Tensor]) -> Sequence[Tensor]:
    """``new``, or ``old`` where the step was not made."""
    return new if is_made is None else [torch.where(is_made, a, b) for a, b in zip(new, old, strict=True)]
