"""The error of a prediction, position by position, and its mean over each picture: ``(B, ...)`` in, ``(B,)`` out.

With ``d = prediction - target`` and a transition ``delta``, the pseudo-Huber losses are

* ``huber      = 2 delta (sqrt(d^2 + delta^2) - delta)``: ``d^2`` where ``d`` is small, ``2 delta |d|`` where it is large;
* ``smooth_l1  = 2 (sqrt(d^2 + delta^2) - delta)``: ``d^2 / delta`` where ``d`` is small, ``2 |d|`` where it is large.

They are computed as ``2 delta d^2 / (sqrt(d^2 + delta^2) + delta)``, which is the same and loses no digits where ``d`` is small.
Source: scheduled pseudo-Huber loss, arXiv 2403.16728, with the factors of kohya's sd-scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["l2", "huber", "smooth_l1"]
DeltaSchedule = Literal["constant", "exponential", "snr"]


def _smooth_l1(difference: Tensor, delta: Tensor) -> Tensor:
    square = difference.square()
    return 2 * square / ((square + delta.square()).sqrt() + delta)


LOSSES: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda difference, delta: difference.square(),
    "huber": lambda difference, delta: delta * _smooth_l1(difference, delta),
    "smooth_l1": _smooth_l1,
}
"""``(difference (B, ...), delta that broadcasts) -> (B, ...)``."""


def pointwise(kind: Kind, prediction: Tensor, target: Tensor, delta: Tensor) -> Tensor:
    """The loss at each position, ``(B, C, h, w)``, in float32 whatever the precision of the prediction; ``delta`` is ``(B,)``."""
    return LOSSES[kind](prediction.float() - target.float(), delta.float().view(-1, 1, 1, 1))


def picture_mean(loss: Tensor) -> Tensor:
    """Mean over each picture, ``(B,)``."""
    return loss.flatten(1).mean(1)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each picture, ``(B,)``, in float32."""
    return picture_mean((prediction.float() - target.float()).square())


def scheduled_delta(schedule: DeltaSchedule, delta: float, progress: Tensor, snr: Tensor) -> Tensor:
    """The transition of the Huber losses at each timestep, ``(B,)``.

    ``constant``: ``delta``. ``exponential``: ``delta^(t / T)``, with ``progress = t / T``. ``snr``:
    ``(1 - delta) / (1 + sigma)^2 + delta`` with ``sigma = 1 / sqrt(snr)``; at ``snr = 0`` it is ``delta``.
    The last two fall from about 1 without noise to ``delta`` in pure noise. Source: arXiv 2403.16728.
    """
    if schedule == "constant":
        return torch.full_like(snr, delta)
    if schedule == "exponential":
        return delta**progress
    return (1 - delta) / (1 + snr.rsqrt()).square() + delta
