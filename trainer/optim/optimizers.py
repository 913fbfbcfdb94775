"""Optimisers as a table, any other class by its dotted name, and a rehearsal before the run."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import inspect
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from prodigyopt import Prodigy
from pytorch_optimizer.optimizer.adafactor import AdaFactor
from pytorch_optimizer.optimizer.came import CAME
from pytorch_optimizer.optimizer.lion import Lion
from pytorch_optimizer.optimizer.schedulefree import ScheduleFreeAdamW
from torch import nn
from torch.optim import AdamW, Optimizer

from morelora import AdapterSet, Target
from trainer.config import OptimizerConfig
from trainer.errors import InputError
from trainer.optim.galore import GaLoreAdamW
from trainer.optim.groups import parameter_groups
from trainer.optim.state import equal_states, pack_optimizer, unpack_optimizer

WEIGHT_DECAY = 0.01
OWN = {"params": "", "lr": "optimizer.lr", "betas": "optimizer.beta1 and beta2", "weight_decay": "optimizer.weight_decay"}
"""Arguments that have settings of their own."""


def _bitsandbytes(name: str) -> Callable[[], type[Optimizer]]:
    def load() -> type[Optimizer]:
        try:
            return getattr(importlib.import_module("bitsandbytes.optim"), name)
        except ImportError as error:
            raise InputError(
                f"8-bit optimisers need the package bitsandbytes, which cannot be imported: {error}",
                "install it (python -m pip install bitsandbytes==0.50.2), or use optimizer.name = 'adamw'",
            ) from error

    return load


@dataclass(frozen=True)
class Kind:
    """One optimiser: where its class comes from, and the defaults that this program gives it."""

    load: Callable[[], type[Optimizer]]
    betas: tuple[float, ...] | None = (0.9, 0.99)
    """Defaults of ``beta1`` and ``beta2``, and what follows them; None where it has none to set."""
    arguments: dict[str, Any] = field(default_factory=dict)


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(lambda: AdamW, arguments={"fused": True}),
    "adamw8bit": Kind(_bitsandbytes("AdamW8bit")),
    "paged_adamw8bit": Kind(_bitsandbytes("PagedAdamW8bit")),
    # Without the rate's own course and without the scale by the weight's size, which would hold factors that start at zero.
    "adafactor": Kind(lambda: AdaFactor, None, {"betas": (None, 0.999), "scale_parameter": False, "relative_step": False}),
    "lion": Kind(lambda: Lion),
    "prodigy": Kind(lambda: Prodigy, arguments={"use_bias_correction": True, "safeguard_warmup": True}),
    "schedule_free": Kind(lambda: ScheduleFreeAdamW, (0.9, 0.999)),
    "came": Kind(lambda: CAME, (0.9, 0.999, 0.9999)),
}
"""Sources: AdamW 1711.05101; 8-bit 2110.02861; Adafactor 1804.04235; Lion 2302.06675; Prodigy 2306.06101; schedule-free
2405.15682; CAME 2307.02047."""

INSTEAD = f"use one of {', '.join(OPTIMIZERS)}, or another class"


def build_optimizer(
    adapters: AdapterSet, targets: Iterable[Target], config: OptimizerConfig, more: Iterable[dict] = ()
) -> Optimizer:
    """The optimiser of ``config`` over the adapters and ``more`` groups. Raises ``InputError`` as ``make_optimizer``."""
    return make_optimizer([*parameter_groups(adapters, targets, config), *more], config)


def make_optimizer(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    """The optimiser of ``config`` over groups with rates of their own, ready to train.

    Raises:
        InputError: a package or class is missing, an argument is unknown or refused, or the device cannot run it.
    """
    cls = optimizer_class(config.name) if config.galore_rank is None else GaLoreAdamW
    if config.name == "paged_adamw8bit" and groups[0]["params"][0].device.type != "cuda":
        raise InputError("optimizer.name = 'paged_adamw8bit' needs an NVIDIA GPU", "use 'adamw8bit', which runs everywhere")
    _check_names(cls, config)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Prodigy prints
            optimizer = cls(groups, lr=config.lr, **_arguments(config))
    except Exception as error:  # whatever a class of someone else's says of its arguments
        what = f"{cls.__name__} refuses optimizer.arguments = {config.arguments}: {error}"
        raise InputError(what, f"see the documentation of {cls.__name__}") from error
    if hasattr(optimizer, "train"):
        optimizer.train()  # schedule-free classes may start in the other mode
    return optimizer


def optimizer_class(name: str) -> type[Optimizer]:
    """The class of a name in the table, or of a dotted one. Raises ``InputError`` where there is none."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name].load()
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        fix = "install its package, or mend the name"
        raise InputError(f"optimizer.name = {name!r} cannot be imported: {error}", fix) from error
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise InputError(f"optimizer.name = {name!r} is no torch.optim.Optimizer", INSTEAD)
    return cls


def _arguments(config: OptimizerConfig) -> dict[str, Any]:
    """Keyword arguments: the table's, then the settings', then the user's own; lists become tuples."""
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in config.arguments.items()}
    if config.name not in OPTIMIZERS:
        return own
    kind = OPTIMIZERS[config.name]
    found = {} if config.galore_rank is not None else dict(kind.arguments)  # no fused kernel: it steps in two parts
    found["weight_decay"] = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
    if kind.betas is not None:
        set_ones = (config.beta1, config.beta2)
        found["betas"] = tuple(b if a is None else a for a, b in zip(set_ones, kind.betas, strict=False)) + kind.betas[2:]
    return found | own


def _check_names(cls: type[Optimizer], config: OptimizerConfig) -> None:
    """Refuse an argument that the class does not name: many swallow unknown ones without a word."""
    known = [name for name, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD]
    reserved = OWN if config.name in OPTIMIZERS else {name: OWN[name] for name in ("params", "lr")}
    for name in config.arguments:
        if name in reserved:
            raise InputError(f"optimizer.arguments.{name} is not for this table", f"use {reserved[name] or 'the other settings'}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            fix = f"it knows {', '.join(sorted(set(known) - reserved.keys()))}"
            raise InputError(f"optimizer.arguments.{name}: {cls.__name__} has no such argument{hint}", fix)


def check_optimizer(config: OptimizerConfig, device: torch.device, forgets: bool = False) -> None:
    """Rehearse on two small tensors, before anything else is done: build, step, save, restore, step again.

    Args:
        forgets: also take its state away and step again, as restarts do.

    Raises:
        InputError: the optimiser cannot be built, cannot step here, or does not go on with the same bits after a restore.
    """
    torch_state = torch.get_rng_state()
    try:
        first, optimizer = _rehearsal(config, device)
        _step(first, optimizer, 0)
        second, other = _rehearsal(config, device)
        with torch.no_grad():
            torch._foreach_copy_(second, first)
        tensors, values = pack_optimizer(optimizer)
        unpack_optimizer(other, copy.deepcopy(tensors), values)
        restored = equal_states(optimizer, other)
        for i in (1, 2):
            torch.set_rng_state(torch_state)
            _step(first, optimizer, i)
            torch.set_rng_state(torch_state)
            _step(second, other, i)
        if forgets:
            third, forgetful = _rehearsal(config, device)
            _step(third, forgetful, 0)
            forgetful.state.clear()
            _step(third, forgetful, 1)
    except InputError:
        raise
    except Exception as error:  # whatever a class of someone else's does
        raise InputError(
            f"optimizer.name = {config.name!r} does not run in a rehearsal: {type(error).__name__}: {error}",
            INSTEAD,
        ) from error
    finally:
        torch.set_rng_state(torch_state)
    if not (restored and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))):
        raise InputError(
            f"optimizer.name = {config.name!r} goes on differently after a restored state: a stopped run could not be resumed",
            INSTEAD,
        )


def _rehearsal(config: OptimizerConfig, device: torch.device) -> tuple[list[nn.Parameter], Optimizer]:
    """A matrix that is large enough for 8-bit state, and a vector."""
    parameters = [nn.Parameter(torch.linspace(-1, 1, 4096, device=device).view(shape)) for shape in ((64, 64), (4096,))]
    groups: list[dict[str, Any]] = [{"params": [parameter], "lr": config.lr} for parameter in parameters]
    if config.galore_rank is not None:
        groups[0] |= {"rank": 2, "interval": 2, "scale": config.galore_scale}
    return parameters, make_optimizer(groups, config)


def _step(parameters: list[nn.Parameter], optimizer: Optimizer, number: int) -> None:
    for parameter in parameters:
        parameter.grad = torch.sin(parameter.detach() * 100 + number)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
