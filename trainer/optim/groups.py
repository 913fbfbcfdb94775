"""Which parameters learn at which rate, and which are projected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from morelora import AdapterSet, Target
from trainer.config import OptimizerConfig
from trainer.errors import InputError
from trainer.optim.galore import projects

FULL = "full"
"""The algorithm whose weights GaLore projects."""


def learning_rate(target: Target, config: OptimizerConfig) -> float:
    """A layer's rate: its rule's, else its text encoder's, else ``lr``. The second text encoder follows the first one's."""
    if target.lr is not None:
        return target.lr
    if target.component == "text_encoder_2" and config.text_encoder_2_lr is not None:
        return config.text_encoder_2_lr
    is_text = target.component.startswith("text_encoder")
    return config.text_encoder_lr if is_text and config.text_encoder_lr is not None else config.lr


def current_rates(optimizer: Optimizer) -> dict[nn.Parameter, float]:
    """The rate that each parameter is trained at now; where the optimiser finds a factor of its own (``d``), with that."""
    return {p: group["lr"] * group.get("d", 1.0) for group in optimizer.param_groups for p in group["params"]}


def parameter_groups(adapters: AdapterSet, targets: Iterable[Target], config: OptimizerConfig) -> list[dict[str, Any]]:
    """One group for each learning rate, and one more for the matrices of that rate that GaLore projects.

    Raises:
        InputError: ``lora_plus_ratio``, ``galore_rank`` or ``text_encoder_2_lr`` has nothing to act on.
    """
    targets = list(targets)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter, lr, is_projected in _placed(adapters, targets, config):
        groups.setdefault((lr, is_projected), []).append(parameter)
    _refuse_idle(adapters, targets, config, any(is_projected for _, is_projected in groups))
    projection = {"rank": config.galore_rank, "interval": config.galore_interval, "scale": config.galore_scale}
    return [{"params": held, "lr": lr} | (projection if is_projected else {}) for (lr, is_projected), held in groups.items()]


def _placed(adapters: AdapterSet, targets: list[Target], config: OptimizerConfig) -> Iterator[tuple[nn.Parameter, float, bool]]:
    """Each parameter with its rate, and whether it is projected."""
    ratio, rank, held = config.lora_plus_ratio or 1.0, config.galore_rank, adapters.by_layer()
    for target in targets:
        lr, adapter = learning_rate(target, config), adapters.layers[target.name].adapter
        raised = {id(factor) for factor in adapter.zero_factors()}
        for parameter in held[target.name]:
            is_projected = rank is not None and target.algorithm == FULL and projects(parameter, rank)
            yield parameter, lr * ratio if id(parameter) in raised else lr, is_projected


def _refuse_idle(adapters: AdapterSet, targets: list[Target], config: OptimizerConfig, projected: bool) -> None:
    """Refuse what would do nothing on these layers."""
    if config.text_encoder_2_lr is not None and not any(target.component == "text_encoder_2" for target in targets):
        raise InputError("optimizer.text_encoder_2_lr has no effect: this base model has one text encoder", "remove it")
    if config.lora_plus_ratio is not None and not any(adapter.zero_factors() for _, adapter in adapters):
        names = ", ".join(sorted({target.algorithm for target in targets}))
        raise InputError(
            f"optimizer.lora_plus_ratio has no effect: {names} has no factor that starts at zero beside others",
            "remove it, or use adapter.algorithm = 'lora', 'loha' or 'lokr' with the start of its own",
        )
    if config.galore_rank is not None and not projected:
        raise InputError(
            f"optimizer.galore_rank = {config.galore_rank} has no effect: no layer is trained whole, or none exceeds the rank",
            "use adapter.algorithm = 'full' (or a rule with it) and a lower rank, or remove it",
        )
