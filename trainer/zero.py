"""DeepSpeed's ZeRO-1 and ZeRO-2, launched by accelerate: the optimiser's state lies shared out over the processes.

Stage 1 shares out the optimiser's state, stage 2 the summed gradients too; the parameters are whole everywhere. DeepSpeed lays
each group of parameters into one vector and gives each process a slice of it, so that only optimisers fit that move each number
by itself. It steps a copy of the slice in float32 and spreads the result: who sets a parameter otherwise says so by ``take``.

Checkpoints hold what the optimiser's own ``state_dict`` would: any number of processes goes on from them, with ZeRO or without.
Sources: ZeRO arXiv 1910.02054; ``coalesce_grad_reduction`` and the tensor fragments of DeepSpeed's API.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.config import Config
from trainer.errors import InputError

VERSION = "0.19.8"
INSTALL = f"install it (python -m pip install deepspeed=={VERSION}), or launch with --multi_gpu (see docs/distributed.md)"
BUCKET = 2**27
"""Numbers that are summed over the processes at once, at most."""
ELEMENTWISE = ("adamw", "lion")
"""Optimisers that move each number by itself; of Lion some arguments do not."""
PLAIN = "or launch it with plain data parallelism: accelerate launch --multi_gpu (see docs/distributed.md)"


def is_zero(accelerator: Accelerator) -> bool:
    """Whether the launcher asks for DeepSpeed."""
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def check_zero(config: Config, plugin: Any) -> None:
    """Raise ``InputError`` where accelerate's DeepSpeed ``plugin`` asks for what does not fit this training, or the training for
    what ZeRO cannot do."""
    for what, fix in (*_of_plugin(plugin), *_of_config(config)):
        raise InputError(f"this run was launched with DeepSpeed, and {what}", f"{fix}, {PLAIN}")


def _of_plugin(plugin: Any) -> Iterable[tuple[str, str]]:
    stage, asked = plugin.zero_stage, plugin.deepspeed_config
    if stage not in (1, 2):
        why = "shares nothing out" if stage == 0 else "splits the weights of the model, and here these are frozen"
        yield f"ZeRO-{stage} {why}", "set zero_stage to 1 or 2"
    if plugin.gradient_accumulation_steps not in (1, "auto", None):
        count = plugin.gradient_accumulation_steps
        yield f"its configuration accumulates over {count} micro steps", "take that out and set train.accumulation"
    for key in asked.keys() & {"optimizer", "scheduler"}:
        yield f"its configuration has {key}", "take that out and use the settings of optimizer.*"
    for kind in ("offload_optimizer", "offload_param"):
        device = asked["zero_optimization"].get(kind, {}).get("device", "none")
        if device not in ("none", None):
            yield f"{kind} is {device!r}, which is not supported", "set it to 'none'"
    for dtype in ("fp16", "bf16"):
        if str(asked.get(dtype, {}).get("enabled", False)).lower() == "true":
            yield f"its configuration would keep the adapters in {dtype}", "take it out and set train.precision"


def _of_config(config: Config) -> Iterable[tuple[str, str]]:
    if config.train.precision == "fp16":
        yield "train.precision = 'fp16' scales the loss by itself", "set train.precision = 'bf16'"
    name, cuts = config.optimizer.name, "looks at whole tensors, which ZeRO cuts up"
    if name not in ELEMENTWISE:
        yield f"optimizer.name = {name!r} {cuts}", f"use {' or '.join(map(repr, ELEMENTWISE))}"
    if config.optimizer.galore_rank is not None:
        yield f"optimizer.galore_rank {cuts}", "remove it"
    if name == "lion" and config.optimizer.arguments:
        yield f"optimizer.arguments of Lion may {cuts.replace('looks', 'look')}", "remove them"
    if config.relora.every:
        yield "relora.every takes away the state of whole tensors, which ZeRO cuts up", "set relora.every = 0"
    if config.embedding.vectors:
        yield "embedding.vectors rest during a run, which ZeRO does not let them", "train the word without DeepSpeed"


class Zero:
    """An optimiser whose state is shared out: to its users it is like the ``optimizer`` that it was made from.

    All processes must call each method together.
    """

    def __init__(self, accelerator: Accelerator, modules: Iterable[nn.Module], optimizer: Optimizer, config: Config) -> None:
        self.optimizer = optimizer
        self.members = [list(group["params"]) for group in optimizer.param_groups]
        self.world = accelerator.num_processes
        self.api = importlib.import_module("deepspeed.utils")
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        asked = accelerator.state.deepspeed_plugin.deepspeed_config
        asked["train_micro_batch_size_per_gpu"] = config.train.batch_size
        asked["gradient_clipping"] = config.optimizer.clip_norm or 0.0
        if asked["zero_optimization"].get("reduce_bucket_size", "auto") == "auto":  # else 2 GB, for models that are trained whole
            asked["zero_optimization"]["reduce_bucket_size"] = min(BUCKET, sum(map(torch.numel, self.parameters())))
        self.engine, _ = accelerator.prepare(nn.ModuleList(modules), optimizer)
        self._open()

    def _open(self) -> None:
        """Let the optimiser make its state, by a step without gradient, and undo the step."""
        before = [parameter.detach().clone() for parameter in self.parameters()]
        options = [dict(group) for group in self.optimizer.param_groups]
        with self.collected():
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self.step()
        for group, asked in zip(self.optimizer.param_groups, options, strict=True):
            _put(group, asked)
        for state in self.optimizer.state.values():
            torch._foreach_zero_(list(state.values()))
        with torch.no_grad():
            torch._foreach_copy_(self.parameters(), before)
        self.take()

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.members for parameter in group]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups, with the parameters themselves in the place of their slices."""
        groups = self.optimizer.param_groups
        return [{**group, "params": members} for group, members in zip(groups, self.members, strict=True)]

    @property
    def state(self) -> dict[nn.Parameter, Any]:
        """Nothing: no process holds the state of a whole parameter."""
        return {}

    def collected(self) -> AbstractContextManager[None]:
        """Inside, gradients add up in each process; on leaving, over the processes."""
        return self.engine.coalesce_grad_reduction()

    def backward(self, loss: Tensor) -> None:
        """Of a loss whose sum over the processes is meant; DeepSpeed takes the mean."""
        self.engine.backward(loss * self.world)

    def step(self) -> Tensor:
        """Clip and step; returns the gradient's norm before clipping. The gradients are gone then."""
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: ``step`` has done it."""

    def take(self) -> None:
        """The parameters were set by someone else: go on from them."""
        for parameter in self.parameters():
            self.api.safe_set_full_fp32_param(parameter, parameter.detach().float())

    def state_dict(self) -> dict[str, Any]:
        """As the optimiser itself would give it, had it the whole."""
        state, groups, number = {}, [], 0
        for group, members in zip(self.optimizer.param_groups, self.members, strict=True):
            (slice_,) = group["params"]
            groups.append({**group, "params": list(range(number, number + len(members)))})
            for parameter in members:
                state[number] = {name: self._whole(parameter, slice_, name) for name in self.optimizer.state[slice_]}
                number += 1
        return {"state": state, "param_groups": groups}

    def _whole(self, parameter: nn.Parameter, slice_: Tensor, name: str) -> Tensor:
        held = self.optimizer.state[slice_][name]
        return self.api.safe_get_full_optimizer_state(parameter, name) if held.shape == slice_.shape else held.clone()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take each process's slice of what ``state_dict`` gave. The parameters have their values already."""
        number = 0
        for group, members, before in zip(self.optimizer.param_groups, self.members, saved["param_groups"], strict=True):
            (slice_,) = group["params"]
            _put(group, before)
            for parameter in members:
                for name, held in self.optimizer.state[slice_].items():
                    value = saved["state"][number][name].to(held)
                    if held.shape == slice_.shape:
                        self.api.safe_set_full_optimizer_state(parameter, value, name)
                    else:
                        held.copy_(value)
                number += 1
        self.take()


def _put(group: dict[str, Any], options: dict[str, Any]) -> None:
    """Give an optimiser's group these options and no others; its parameters stay."""
    members = group["params"]
    group.clear()
    group.update(options, params=members)
