"""Optimisers and schedules as tables, parameter groups, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from prodigyopt import Prodigy
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from morelora import AdapterSet, Target
from trainer.config import OptimizerConfig


def _adamw(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, fused=True)


def _prodigy(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    return Prodigy(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        use_bias_correction=True,
        safeguard_warmup=True,
    )


OPTIMIZERS: dict[str, Callable[[list[dict], OptimizerConfig], Optimizer]] = {"adamw": _adamw, "prodigy": _prodigy}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Multiplier of the learning rate by progress ``0 .. 1`` after warm-up."""


def learning_rate(target: Target, config: OptimizerConfig) -> float:
    """A layer's rate: its rule's, else the text encoder's, else ``lr``."""
    if target.lr is not None:
        return target.lr
    is_text = target.component.startswith("text_encoder")
    return config.text_encoder_lr if is_text and config.text_encoder_lr is not None else config.lr


def parameter_groups(adapters: AdapterSet, targets: Iterable[Target], config: OptimizerConfig) -> list[dict]:
    """One group for each learning rate, in the order of the targets."""
    groups: dict[float, list[nn.Parameter]] = {}
    for target in targets:
        groups.setdefault(learning_rate(target, config), []).extend(adapters.layers[target.name].adapter.parameters())
    return [{"params": parameters, "lr": lr} for lr, parameters in groups.items()]


def build_optimizer(adapters: AdapterSet, targets: Iterable[Target], config: OptimizerConfig) -> Optimizer:
    """The optimiser of ``config.name`` over the adapters."""
    return OPTIMIZERS[config.name](parameter_groups(adapters, targets, config), config)


def build_schedule(optimizer: Optimizer, config: OptimizerConfig, steps: int) -> LambdaLR:
    """Warm-up from ``1 / warmup`` to 1, then ``config.schedule`` over the steps that are left."""
    course = SCHEDULES[config.schedule]

    def multiplier(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        return course(min(1.0, (step - config.warmup) / (steps - config.warmup)))

    return LambdaLR(optimizer, multiplier)


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors by ``<parameter>.<name>`` and JSON values: no pickle."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{name}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    for i, group in enumerate(groups):
        for name in [name for name, value in group.items() if isinstance(value, Tensor)]:
            tensors[f"group{i}.{name}"] = group.pop(name)
    return tensors, {"scalars": scalars, "groups": groups}


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Give an optimiser of the same parameters the state that ``pack_optimizer`` took."""
    fresh = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    groups = [
        group | {"params": own["params"]} | ({"betas": tuple(group["betas"])} if "betas" in group else {})
        for group, own in zip(values["groups"], fresh["param_groups"], strict=True)
    ]
    for key, value in (tensors | values["scalars"]).items():
        index, _, name = key.partition(".")
        if index.startswith("group"):
            groups[int(index.removeprefix("group"))][name] = value
        else:
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class Ema:
    """``average <- decay average + (1 - decay) value``, with ``decay`` rising as ``(1 + step) / (10 + step)`` at first."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.average = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and values; twice is the identity."""
        for average, parameter in zip(self.average, self.parameters, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def state(self) -> dict[str, Tensor]:
        return {str(i): tensor for i, tensor in enumerate(self.average)}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        for i, average in enumerate(self.average):
            average.copy_(state[str(i)])
