"""Which parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Iterable

from morelora import AdapterSet, Target
from trainer.config import OptimizerConfig


def learning_rate(target: Target, config: OptimizerConfig) -> float:
    """A layer's rate: its rule's, else its text encoder's, else ``lr``. The second text encoder follows the first one's."""
    if target.lr is not None:
        return target.lr
    if target.component == "text_encoder_2" and config.text_encoder_2_lr is not None:
        return config.text_encoder_2_lr
    is_text = target.component.startswith("text_encoder")
    return config.text_encoder_lr if is_text and config.text_encoder_lr is not None else config.lr


def parameter_groups(adapters: AdapterSet, targets: Iterable[Target], config: OptimizerConfig) -> list[dict]:
    """One group for each learning rate, in the order of the targets."""
    groups: dict[float, dict] = {}
    for target in targets:
        lr = learning_rate(target, config)
        group = groups.setdefault(lr, {"params": [], "lr": lr})
        group["params"].extend(adapters.layers[target.name].adapter.parameters())
    return list(groups.values())
