"""GaLore: Adam in a low-rank space of the gradient, for weights that are trained whole.

A matrix ``W (m, n)`` with gradient ``G`` gets a basis ``P`` of ``r`` columns, the singular vectors of ``G`` on its shorter side,
made anew every ``interval`` steps. Adam's moments are held of the projected gradient only: ``r max(m, n)`` numbers in the
place of ``m n``.

    m <= n:  R = P^T G (r, n),  W <- W - lr scale P adam(R)          m > n:  R = G P (m, r),  W <- W - lr scale adam(R) P^T

Weight decay is AdamW's, of the whole matrix. Parameters of groups without ``rank`` are left to AdamW itself.
Source: arXiv 2403.03507, algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class GaLoreAdamW(AdamW):
    """AdamW, projected in the groups that have ``rank``, ``interval`` and ``scale``."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the projected matrices are kept from AdamW's own by taking their gradients aside."""
        held = [
            (group, p, p.grad) for group in self.param_groups if "rank" in group for p in group["params"] if p.grad is not None
        ]
        for _, parameter, _ in held:
            parameter.grad = None
        loss = super().step(closure)
        for group, parameter, gradient in held:
            parameter.grad = gradient
            _step(parameter, gradient, group, self.state[parameter])
        return loss


def projects(parameter: nn.Parameter, rank: int) -> bool:
    """Whether the projection saves anything on this parameter."""
    return parameter.dim() == 2 and rank < min(parameter.shape)


def basis(gradient: Tensor, rank: int) -> Tensor:
    """The ``rank`` leading singular vectors of the shorter side, ``(min(m, n), rank)``."""
    rows, columns = gradient.shape
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    return (left[:, :rank] if rows <= columns else right[:rank].T).contiguous()


def _step(parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    is_wide = parameter.shape[0] <= parameter.shape[1]
    state["step"] = state.get("step", torch.zeros(())) + 1  # a tensor on the CPU, as AdamW's own
    step = int(state["step"])
    if (step - 1) % group["interval"] == 0:
        state["basis"] = basis(gradient, group["rank"])
    small = state["basis"].T @ gradient if is_wide else gradient @ state["basis"]
    if step == 1:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(small), torch.zeros_like(small)
    beta1, beta2 = group["betas"]
    state["exp_avg"].lerp_(small, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(small, small, value=1 - beta2)
    mean = state["exp_avg"] / (1 - beta1**step)
    update = mean / ((state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"]))
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    whole = state["basis"] @ update if is_wide else update @ state["basis"].T
    parameter.add_(whole, alpha=-group["lr"] * group["scale"])
