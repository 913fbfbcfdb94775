"""Which parameters learn at which rate."""

from __future__ import annotations

import pytest
from torch import nn

from morelora import AdapterConfig, inject, resolve
from trainer.config import OptimizerConfig
from trainer.errors import InputError
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


@pytest.mark.acts("optimizer.lr", "optimizer.text_encoder_lr", "optimizer.text_encoder_2_lr")
def test_groups_by_component_and_rule():
    rules = [{"match": r"unet.*to_k", "lr": 0.5}]
    config = OptimizerConfig(lr=0.1, text_encoder_lr=0.2, text_encoder_2_lr=0.3)
    assert rates(config, rules=rules) == {0.1: ONE, 0.5: ONE, 0.2: ONE, 0.3: ONE}


def test_the_second_text_encoder_follows_the_first_and_both_follow_the_unet():
    assert rates(OptimizerConfig(lr=0.1, text_encoder_lr=0.2)) == {0.1: 2 * ONE, 0.2: 2 * ONE}
    assert rates(OptimizerConfig(lr=0.1)) == {0.1: 4 * ONE}


@pytest.mark.acts("optimizer.lora_plus_ratio")
@pytest.mark.parametrize(
    ("adapter", "raised"),
    [
        ({"algorithm": "lora", "rank": 2}, {"up"}),
        ({"algorithm": "loha", "rank": 2}, {"w2_a"}),
        ({"algorithm": "lokr", "rank": 1, "factor": 2}, {"w2_b"}),
        ({"algorithm": "lokr", "full_matrix": True, "factor": 2}, {"w2"}),
        ({"algorithm": "lora", "rank": 2, "weight_decompose": True}, {"inner.up"}),
    ],
)
def test_lora_plus_raises_the_factors_that_start_at_zero(adapter, raised):
    models = {"unet": Model(), "text_encoder": Model()}
    targets = resolve(models, AdapterConfig.model_validate(adapter))
    adapters = inject(models, targets)
    groups = parameter_groups(adapters, targets, OptimizerConfig(lr=0.1, text_encoder_lr=0.01, lora_plus_ratio=16))
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, layer in adapters.layers.items():
        for leaf, parameter in layer.adapter.named_parameters():
            usual = 0.01 if name.startswith("text") else 0.1
            assert rate[id(parameter)] == pytest.approx(usual * 16 if leaf in raised else usual)


def test_galore_takes_the_matrices_of_full_layers_that_are_larger_than_its_rank():
    rules = [{"match": r"unet.*to_k", "algorithm": "full"}, {"match": "fc1", "algorithm": "full", "lr": 0.7}]
    models = {"unet": Model(), "text_encoder": Model()}
    targets = resolve(models, AdapterConfig.model_validate({"rank": 2, "rules": rules}))
    adapters = inject(models, targets)
    groups = parameter_groups(adapters, targets, OptimizerConfig(lr=0.1, galore_rank=3, galore_scale=0.5))
    projected = [group for group in groups if "rank" in group]
    assert [(g["lr"], g["rank"], g["interval"], g["scale"]) for g in projected] == [(0.1, 3, 200, 0.5), (0.7, 3, 200, 0.5)]
    found = [p.shape for group in projected for p in group["params"]]
    assert found == [(6, 4)] * len(found) and len(found) == 3
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in adapters.parameters())


@pytest.mark.parametrize(
    ("adapter", "optimizer", "words"),
    [
        ({"algorithm": "full"}, {"lora_plus_ratio": 16}, "lora_plus_ratio has no effect: full has no factor"),
        ({"algorithm": "lora", "rank": 2}, {"galore_rank": 2}, "galore_rank = 2 has no effect: no layer is trained whole"),
        ({"algorithm": "full"}, {"galore_rank": 4}, "galore_rank = 4 has no effect"),
        ({"algorithm": "lora", "rank": 2}, {"text_encoder_2_lr": 0.1}, "this base model has one text encoder"),
    ],
)
def test_what_has_nothing_to_act_on_is_refused(adapter, optimizer, words):
    models = {"unet": Model(), "text_encoder": Model()}
    targets = resolve(models, AdapterConfig.model_validate(adapter))
    with pytest.raises(InputError, match=words):
        parameter_groups(inject(models, targets), targets, OptimizerConfig(**optimizer))
