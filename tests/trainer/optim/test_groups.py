"""Which parameters learn at which rate."""

from __future__ import annotations

from torch import nn

from morelora import AdapterConfig, inject, resolve
from trainer.config import OptimizerConfig
from trainer.optim import parameter_groups

ONE = 2 * (4 + 6)
"""Parameters of one layer."""


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1 = nn.ModuleDict({"to_q": nn.Linear(4, 6), "to_k": nn.Linear(4, 6)})
        self.layers = nn.ModuleList([nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(4, 6)})})])


def rates(config: OptimizerConfig, **adapter) -> dict[float, int]:  # noqa: ANN003
    """Parameters by learning rate, over a UNet of two layers and two text encoders of one."""
    models = {name: Model() for name in ("unet", "text_encoder", "text_encoder_2")}
    targets = resolve(models, AdapterConfig.model_validate({"rank": 2, **adapter}))
    groups = parameter_groups(inject(models, targets), targets, config)
    return {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups}


def test_groups_by_component_and_rule():
    rules = [{"match": r"unet.*to_k", "lr": 0.5}]
    config = OptimizerConfig(lr=0.1, text_encoder_lr=0.2, text_encoder_2_lr=0.3)
    assert rates(config, rules=rules) == {0.1: ONE, 0.5: ONE, 0.2: ONE, 0.3: ONE}


def test_the_second_text_encoder_follows_the_first_and_both_follow_the_unet():
    assert rates(OptimizerConfig(lr=0.1, text_encoder_lr=0.2)) == {0.1: 2 * ONE, 0.2: 2 * ONE}
    assert rates(OptimizerConfig(lr=0.1)) == {0.1: 4 * ONE}
