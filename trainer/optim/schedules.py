"""Courses of the learning rate: a multiplier by progress ``p = 0 .. 1`` after a linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainer.config import OptimizerConfig, ReloraConfig

SCHEDULES: dict[str, Callable[[float, OptimizerConfig], float]] = {
    "constant": lambda p, config: 1.0,
    "linear": lambda p, config: 1.0 - p,
    "cosine": lambda p, config: _half_wave(p),
    "cosine_restarts": lambda p, config: _half_wave(config.cycles * p % 1.0) if p < 1.0 else 0.0,
    "polynomial": lambda p, config: (1.0 - p) ** config.power,
    "rex": lambda p, config: 2.0 * (1.0 - p) / (2.0 - p),
}
"""``cosine_restarts`` as SGDR, arXiv 1608.03983; ``rex`` as arXiv 2107.04197: ``(1 - p) / (1/2 + (1 - p)/2)``."""


def _half_wave(p: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * p))


def warmup_steps(config: OptimizerConfig, steps: int) -> int:
    """Steps of warm-up: ``warmup`` itself, or the share of ``steps`` that a fraction means."""
    return round(config.warmup * steps) if 0 < config.warmup < 1 else int(config.warmup)


def build_schedule(optimizer: Optimizer, config: OptimizerConfig, steps: int, relora: ReloraConfig | None = None) -> LambdaLR:
    """Warm-up from ``1 / warmup`` to 1, then ``min_lr_ratio + (1 - min_lr_ratio) course(p)`` over the steps that are left.

    After each restart of ``relora`` it rises again from ``1 / relora.warmup`` of that to the whole.
    """
    course, warmup, floor = SCHEDULES[config.schedule], warmup_steps(config, steps), config.min_lr_ratio

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return floor + (1.0 - floor) * course(min(1.0, (step - warmup) / (steps - warmup)), config)

    def with_restarts(step: int) -> float:
        has_restarted = relora is not None and relora.warmup > 0 and step >= relora.every
        return multiplier(step) * (min(1.0, (step % relora.every + 1) / relora.warmup) if has_restarted else 1.0)

    return LambdaLR(optimizer, with_restarts)
