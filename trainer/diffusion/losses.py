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

TINY = 1e-8
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


def picture_mean(loss: Tensor, importance: Tensor | None = None, normalize: bool = False) -> Tensor:
    """Mean over each picture, ``(B,)``; with an ``importance`` of each position, ``(B, 1, h, w)``, ``mean(importance * loss)``.

    A picture with a small mask then counts less than one with a large mask, as in kohya's sd-scripts and, by default, in
    OneTrainer. ``normalize`` divides by the mean importance, so that every picture counts the same (OneTrainer's
    "normalize masked area loss"); a picture of no importance anywhere has a loss of 0 either way.
    """
    if importance is None:
        return loss.flatten(1).mean(1)
    weighed = (importance * loss).flatten(1).mean(1)
    return weighed / importance.flatten(1).mean(1).clamp_min(TINY) if normalize else weighed


def importance_of(mask: Tensor, unmasked_weight: float) -> Tensor:
    """``mask + unmasked_weight (1 - mask)``: 1 where the mask is white, ``unmasked_weight`` where it is black."""
    return mask + unmasked_weight * (1 - mask)


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
