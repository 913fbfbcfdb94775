"""Which layer gets what: groups, rules, and the errors that name what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from morelora.errors import AdapterError
from morelora.inject import build, inject
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.targets import AdapterConfig, Rule, Target, resolve
from tests.morelora.model import TinyUNet

ATTN = "unet.block.transformer_blocks.0.attn1"
CONVS = ["unet.block.resnets.0.conv1", "unet.block.resnets.0.conv2"]
ATTENTION = [f"{ATTN}.{leaf}" for leaf in ("to_q", "to_k", "to_v", "to_out.0")]


def targets(**settings: Any) -> dict[str, Target]:
    return {t.name: t for t in resolve({"unet": TinyUNet()}, AdapterConfig(**settings))}


@pytest.mark.acts("adapter.layers")
def test_groups() -> None:
    assert list(targets(layers="attention")) == ATTENTION
    assert list(targets(layers="all")) == CONVS + ATTENTION


def test_groups_on_the_real_architectures() -> None:
    """Names as in diffusers 0.42 and transformers 5: each of SD 1.5's 16 blocks has 10 linears and 2 projections."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        text = CLIPTextModel(CLIPTextConfig(num_hidden_layers=12))
    found = {
        layers: [t.name for t in resolve({"unet": unet, "text_encoder": text}, AdapterConfig(layers=layers))]
        for layers in ("attention", "transformer", "all")
    }
    unets = {layers: sum(name.startswith("unet.") for name in names) for layers, names in found.items()}
    assert unets == {"attention": 128, "transformer": 192, "all": 278}
    assert all(sum(name.startswith("text_encoder.") for name in names) == 72 for names in found.values())
    left_out = {n for n, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    left_out -= {name.removeprefix("unet.") for name in found["all"]}
    assert left_out == {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}


@pytest.mark.acts("adapter.rules", "adapter.rules.match", "adapter.rules.algorithm")
def test_first_rule_that_matches_wins_and_overrides() -> None:
    found = targets(
        layers="all",
        rank=4,
        alpha=2.0,
        rules=(
            {"match": r"to_q$", "rank": 8, "lr": 5e-4},
            {"match": r"attn1\.to_", "algorithm": "lokr", "factor": 4, "alpha": 1.0},
            {"match": r"conv1$", "algorithm": "none"},
        ),
    )
    assert CONVS[0] not in found and list(found) == [CONVS[1], *ATTENTION]
    query, key, conv = (found[name] for name in (ATTENTION[0], ATTENTION[1], CONVS[1]))
    assert (query.algorithm, query.options.rank, query.options.alpha, query.lr) == ("lora", 8, 2.0, 5e-4)
    assert (key.algorithm, key.options.factor, key.options.alpha, key.lr) == ("lokr", 4, 1.0, None)
    assert (conv.algorithm, conv.options.rank, conv.options.alpha, conv.lr) == ("lora", 4, 2.0, None)


def test_a_rule_may_reach_layers_outside_the_group() -> None:
    found = targets(layers="attention", rules=({"match": r"conv_in$", "rank": 2},))
    assert list(found) == ["unet.conv_in", *ATTENTION] and found["unet.conv_in"].options.rank == 2


@pytest.mark.acts("adapter.conv_rank", "adapter.conv_alpha")
def test_conv_rank_and_alpha_are_for_larger_kernels_and_rules_go_before_them() -> None:
    found = targets(layers="all", rank=8, alpha=4.0, conv_rank=2, conv_alpha=1.0, rules=({"match": "conv2", "rank": 3},))
    assert [(found[name].options.rank, found[name].options.alpha) for name in (*CONVS, ATTENTION[0])] == [
        (2, 1.0),
        (3, 1.0),
        (8, 4.0),
    ]


@pytest.mark.acts("adapter.algorithm", "adapter.weight_decompose", "adapter.decompose_axis")
def test_weight_decomposition_and_algorithm_reach_every_target() -> None:
    found = targets(layers="all", algorithm="loha", rank=2, weight_decompose=True, decompose_axis="output")
    assert {(t.algorithm, t.decompose, t.options.rank) for t in found.values()} == {("loha", "output", 2)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": ({"match": "nowhere"},)}, r"rules\[0\] \(match = 'nowhere'\) matches no layer.*unet\.conv_in"),
        ({"rules": ({"match": "attn1"}, {"match": "to_q"})}, r"rules\[1\].*or none that an earlier rule left"),
        ({"rules": ({"match": "attn1", "factor": 4},)}, "the rule with match = 'attn1' does not fit lora"),
        ({"rules": ({"match": "attn1", "rank": 0},)}, "the rule with match = 'attn1' does not fit lora"),
        ({"layers": "attention", "rules": ({"match": "attn1", "algorithm": "none"},)}, "nothing would be trained"),
    ],
)
def test_rules_that_cannot_work_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        targets(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "loral"}, "did you mean 'lora'"),
        ({"rules": ({"match": "x", "algorithm": "lokrr"},)}, "did you mean 'lokr'"),
        ({"rules": ({"match": "("},)}, "not a regular expression"),
        ({"layers": "attention", "conv_rank": 4}, "no effect unless layers = 'all'"),
        ({"tucker": True}, "tucker has no effect unless layers = 'all'"),
        ({"algorithm": "lokr", "full_matrix": True, "alpha": 4}, "alpha has no effect"),
        ({"algorithm": "lokr", "full_matrix": True, "rs": True}, "rs has no effect"),
        ({"algorithm": "lokr", "full_matrix": True, "rank": 8}, "rank has no effect"),
        ({"decompose_axis": "output"}, "no effect unless weight_decompose"),
        ({"algorithm": "lora", "factor": 4}, "factor"),
        ({"rank": 0}, "rank"),
    ],
)
def test_settings_that_cannot_work_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdapterConfig(**settings)


def test_alpha_of_a_full_block_acts_where_the_small_matrix_is_a_product() -> None:
    options = {"rank": 1, "factor": 4, "full_matrix": True, "decompose_both": True, "alpha": 4.0}
    config = AdapterConfig(algorithm="lokr", **options)
    adapter = ALGORITHMS["lokr"](Site.of(nn.Linear(16, 16)), config.options)
    assert adapter.w2 is not None and adapter.w1_a is not None and adapter.scale == 4.0


def test_rule_keeps_unknown_keys_as_the_algorithms_options() -> None:
    assert Rule(match="x", rank=3, tucker=True).options == {"rank": 3, "tucker": True}


def test_an_adapted_layer_is_found_once_under_its_own_name() -> None:
    models = {"unet": TinyUNet()}
    first = resolve(models, AdapterConfig(layers="attention"))
    inject(models, first)
    again = resolve(models, AdapterConfig(layers="attention", rules=({"match": "to_", "rank": 2},)))
    assert [t.name for t in again] == [t.name for t in first]


def test_a_layer_that_is_not_square_is_refused_with_the_rule_that_helps() -> None:
    models = {"unet": TinyUNet()}
    config = AdapterConfig(algorithm="krona_res", layers="all", factor=2)
    with pytest.raises(AdapterError, match=r"resnets.0.conv1: .* this one of 16 x 16 x 3 x 3 has not.* 'krona' in a rule"):
        inject(models, resolve(models, config))
    config = AdapterConfig(algorithm="krona_res", layers="all", factor=2, rules=({"match": "resnets", "algorithm": "krona"},))
    adapters = inject(models, resolve(models, config))
    assert {adapter.name for _, adapter in adapters} == {"krona", "krona_res"}


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 36, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, padding=1)], ids=str)
def test_only_a_layer_whose_outputs_stand_where_its_inputs_do_has_an_identity(layer: nn.Module) -> None:
    """A 3x3 kernel of 4 x 9 columns has 36 rows: a square matrix, and no identity."""
    with pytest.raises(AdapterError, match="only a square layer"):
        build(Target("unet.layer", "krona_res", ALGORITHMS["krona_res"].Options()), layer)
