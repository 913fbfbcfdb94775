"""Algorithms without a rank against other people's code, and serial adapters, which are no change of weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.algorithms.bitfit import BitFit
from morelora.algorithms.boft import BOFT
from morelora.algorithms.ia3 import IA3
from morelora.algorithms.norm import Norm
from morelora.algorithms.oft import OFT
from morelora.algorithms.serial import Serial
from morelora.errors import AdapterError, FormatError
from morelora.formats import FORMS
from morelora.load import adapter_from, load
from morelora.site import Site
from morelora.targets import AdapterConfig, resolve
from tests.morelora.formats import sd
from tests.morelora.grid import CASES, EVERY, LAYERS, Case, example, expected_output, randomise

BIASED = ["linear", "conv 3x3 stride 2"]


def lycoris_module(layer: nn.Module, tensors: dict[str, Tensor]) -> Any:
    modules = pytest.importorskip("lycoris.modules")
    kind, values = modules.get_module({f"k.{leaf}": tensor.detach() for leaf, tensor in tensors.items()}, "k")
    return modules.make_module(kind, values, "k", copy.deepcopy(layer)).eval()


# rotations


@pytest.mark.parametrize("case", [c for c in CASES if c.algorithm in ("oft", "boft") and c.axis is None], ids=str)
def test_rotations_equal_lycoris(case: Case) -> None:
    functional = pytest.importorskip("lycoris.functional")
    adapter, weight = case.adapter(trained=True).float(), LAYERS[case.layer].weight.detach().float()
    limit = adapter.options.constraint
    scale = None if adapter.rescale_diff is None else (1 + adapter.rescale_diff).view(-1, *(1 for _ in weight.shape[1:]))
    theirs = {"oft": functional.diag_oft, "boft": functional.boft}[case.algorithm].diff_weight(
        weight, adapter.oft_blocks, scale, constraint=None if limit is None else limit * adapter.site.m, backend="torch"
    )
    torch.testing.assert_close(adapter.delta(weight), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [OFT, BOFT])
def test_the_file_is_lycoris_own(kind: type[OFT] | type[BOFT]) -> None:
    """With the constraint folded in: their module reads the blocks and an alpha that does not act."""
    layer, x = nn.Linear(12, 32), torch.randn(3, 12)
    adapter = kind(Site.of(layer), kind.Options(block_size=4, constraint=0.02))
    randomise(adapter)
    theirs = lycoris_module(layer, adapter.file_tensors(layer, 1.0))
    torch.testing.assert_close(theirs(x), adapter(x, layer), rtol=0, atol=1e-5)


@pytest.mark.acts("adapter.constraint")
def test_the_constraint_limits_the_angles_and_only_beyond_it() -> None:
    site = Site.of(LAYERS["linear"])
    free, bound = (randomise(OFT(site, OFT.Options(block_size=2, constraint=limit)).double()) for limit in (None, 0.05))
    assert free.skew().norm() > 0.05 * site.m
    torch.testing.assert_close(bound.skew().norm().item(), 0.05 * site.m)
    loose = randomise(OFT(site, OFT.Options(block_size=2, constraint=100.0)).double())
    assert torch.equal(loose.skew(), free.skew())


def test_a_rotation_keeps_norms_and_inner_products() -> None:
    weight = torch.randn(16, 9, dtype=torch.float64)
    for kind in (OFT, BOFT):
        adapter = randomise(kind(Site.of(nn.Linear(9, 16)), kind.Options(block_size=4)).double())
        turned = weight + adapter.delta(weight)
        torch.testing.assert_close(turned.T @ turned, weight.T @ weight)


def test_small_angles_are_not_rounded_away_in_half_precision() -> None:
    layer = nn.Linear(16, 16).bfloat16()
    adapter = OFT(Site.of(layer), OFT.Options(block_size=4))
    with torch.no_grad():
        adapter.oft_blocks.normal_(std=1e-3)
    weight = torch.randn(16, 64)
    exact, found = adapter.delta(weight), adapter.delta(weight.bfloat16())
    assert (found.float() - exact).norm() / exact.norm() < 0.02


# scales and biases


@pytest.mark.parametrize("on_input", [True, False])
@pytest.mark.parametrize("name", BIASED)
@torch.no_grad()
def test_ia3_equals_lycoris_that_rebuilds_but_not_its_bypass_with_a_bias(name: str, on_input: bool) -> None:
    modules = pytest.importorskip("lycoris.modules")
    layer = copy.deepcopy(LAYERS[name]).float()
    ours, x = IA3(Site.of(layer), IA3.Options(on_input=on_input)), example(layer, dtype=torch.float32)
    randomise(ours)
    for bypass in (False, True):
        theirs = modules.IA3Module("k", copy.deepcopy(layer), train_on_input=on_input, bypass_mode=bypass).eval()
        theirs.weight.copy_(ours.scale_diff.view(theirs.weight.shape))
        theirs.org_forward = theirs.org_module[0].forward
        is_right = torch.allclose(theirs(x), expected_output(ours, layer, x), rtol=0, atol=1e-5)
        assert is_right == (on_input or not bypass)  # their bypass scales the bias too
    torch.testing.assert_close(ours(x, layer), expected_output(ours, layer, x), rtol=0, atol=1e-5)
    again = adapter_from(
        layer, {leaf: tensor.to(torch.int64) if leaf == "on_input" else tensor for leaf, tensor in ours.tensors(1).items()}
    )
    assert torch.equal(again.scale_diff, ours.scale_diff) and again.options.on_input == on_input


@pytest.mark.parametrize("on_input", [True, False])
@torch.no_grad()
def test_ia3_equals_peft_where_there_is_no_bias(on_input: bool) -> None:
    peft = pytest.importorskip("peft")
    layer, x = copy.deepcopy(LAYERS["odd linear without bias"]), example(LAYERS["odd linear without bias"])
    config = peft.IA3Config(target_modules=["layer"], feedforward_modules=["layer"] if on_input else [])
    theirs = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(layer)}), config).base_model.model["layer"].double()
    ours = randomise(IA3(Site.of(layer), IA3.Options(on_input=on_input)).double())
    theirs.ia3_l["default"].copy_((1 + ours.scale_diff).view_as(theirs.ia3_l["default"]))
    torch.testing.assert_close(ours(x, layer), theirs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["layer norm", "group norm"])
@torch.no_grad()
def test_norms_equal_lycoris(name: str) -> None:
    layer = copy.deepcopy(EVERY[name]).float()
    ours, x = Norm(Site.of(layer), Norm.Options()), example(layer, dtype=torch.float32)
    randomise(ours)
    weight, bias = lycoris_module(layer, ours.file_tensors(layer, 1.0)).make_weight()
    torch.testing.assert_close(layer.weight + ours.delta(layer.weight), weight)
    torch.testing.assert_close(layer.bias + ours.bias_delta(layer.bias), bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(x, layer)
    torch.testing.assert_close(found.float(), expected_output(ours, layer, x), rtol=0.02, atol=0.05)


@pytest.mark.parametrize("name", BIASED)
@torch.no_grad()
def test_a_file_of_biases_equals_lycoris_full(name: str) -> None:
    layer = copy.deepcopy(LAYERS[name]).float()
    ours, x = BitFit(Site.of(layer), BitFit.Options()), example(layer, dtype=torch.float32)
    randomise(ours)
    tensors = ours.file_tensors(layer, 1.0)
    assert tensors["diff"].shape == (1,) and not tensors["diff"].any()
    torch.testing.assert_close(lycoris_module(layer, tensors)(x), expected_output(ours, layer, x), rtol=0, atol=1e-5)
    alone = adapter_from(layer, {"diff_b": tensors["diff_b"]})  # as ComfyUI's users have it
    assert isinstance(alone, BitFit) and torch.equal(alone.shift, ours.shift)


# where they stand


def names(models: dict[str, nn.Module], **settings: Any) -> set[str]:
    return {target.name for target in resolve(models, AdapterConfig.model_validate(settings))}


def test_each_takes_the_layers_that_suit_it() -> None:
    models = sd.small()
    layers = {f"{part}.{path}": layer for part, model in models.items() for path, layer in model.named_modules()}
    for chosen in ("attention", "transformer", "all"):
        norms = names(models, algorithm="norm", layers=chosen)
        assert norms and all(isinstance(layers[name], nn.LayerNorm | nn.GroupNorm) for name in norms)
        assert all(name.startswith("unet.") and "conv_norm_out" not in name for name in norms)
        lora = names(models, algorithm="lora", layers=chosen)
        assert not norms & lora
        biased = {name for name in norms | lora if layers[name].bias is not None}
        assert names(models, algorithm="bitfit", layers=chosen) == biased
        assert names(models, algorithm="ssf", layers=chosen) == norms | lora
    serial = names(models, algorithm="serial", layers="transformer")
    ends = ("to_out.0", "ff.net.2", "out_proj", "fc2")
    assert serial == {name for name in names(models, layers="transformer") if name.endswith(ends)}
    named = names(models, algorithm="serial", rules=[{"match": r"attn2\.to_q"}])
    assert named - serial == {name for name in layers if name.endswith("attn2.to_q")}
    both = names(models, rules=[{"match": r"norm", "algorithm": "norm"}])
    assert any("layer_norm1" in name for name in both) and any(name.endswith("to_q") for name in both)


def test_max_norm_is_refused_where_it_cannot_act() -> None:
    for algorithm in ("bitfit", "ssf", "ia3", "oft", "boft", "serial"):
        with pytest.raises(AdapterError, match=f"max_norm cannot limit {algorithm}"):
            names(sd.small(), algorithm=algorithm, max_norm=1.0)
    assert names(sd.small(), algorithm="norm", max_norm=1.0)


# serial adapters


@pytest.mark.acts("adapter.activation")
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
@pytest.mark.parametrize("name", BIASED)
def test_serial_is_its_formula(name: str, activation: str) -> None:
    layer, x = copy.deepcopy(LAYERS[name]), example(LAYERS[name])
    adapter = Serial(Site.of(layer), Serial.Options(rank=3, activation=activation)).double()
    assert torch.equal(adapter(x, layer), layer(x))
    assert sum(p.numel() for p in adapter.parameters()) == 2 * adapter.site.m * 3 + 3 + adapter.site.m
    randomise(adapter)
    h = layer(x).movedim(1, -1) if adapter.site.is_conv else layer(x)
    f = getattr(torch, activation) if activation == "tanh" else getattr(nn.functional, activation)
    change = f(h @ adapter.down.T + adapter.down_b) @ adapter.up.T + adapter.up_b
    for strength in (1.0, 0.4):
        expected = h + strength * change
        expected = expected.movedim(-1, 1) if adapter.site.is_conv else expected
        torch.testing.assert_close(adapter(x, layer, strength), expected, rtol=0, atol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        assert Adapted(layer.float(), adapter.float())(x.float()).isfinite().all()


def test_serial_learns_in_three_steps_and_cannot_be_merged() -> None:
    layer, x = copy.deepcopy(LAYERS["linear"]), example(LAYERS["linear"])
    adapted = Adapted(layer, Serial(Site.of(layer), Serial.Options(rank=2)).double())
    optimizer = torch.optim.SGD(adapted.adapter.parameters(), lr=0.1)
    reached = set()
    for _ in range(3):
        optimizer.zero_grad()
        adapted(x).square().mean().backward()
        reached |= {name for name, p in adapted.adapter.named_parameters() if p.grad.any()}
        optimizer.step()
    assert reached == {"down", "down_b", "up", "up_b"}
    with pytest.raises(AdapterError, match="serial is no change of the weights and cannot be merged"):
        adapted.merge()


@torch.no_grad()
def test_the_sidecar_is_loaded_and_removed_bit_for_bit(tmp_path: Any) -> None:
    """Beside norms, as in the paper; every algorithm keeps its own compact tensors there."""
    rules = [{"match": r"unet.*norm\d", "algorithm": "norm"}, {"match": "to_q", "algorithm": "ssf"}]
    models = sd.small()
    adapters = sd.trained(models, algorithm="serial", rank=2, rules=rules)
    for form in ("webui", "lora", "diffusers"):
        with pytest.raises(FormatError, match="serial adapter, which is no change of the weights.*'sidecar' form"):
            FORMS[form](adapters)
    save_file(
        {key: tensor.contiguous().clone() for key, tensor in FORMS["sidecar"](adapters).items()}, tmp_path / "s.safetensors"
    )
    assert any(key.endswith("ssf_scale") for key in load_file(tmp_path / "s.safetensors"))
    fresh = sd.small()
    before, plain = {k: v.clone() for k, v in fresh["unet"].state_dict().items()}, sd.picture(fresh)
    loaded = load(fresh, tmp_path / "s.safetensors")
    assert {adapter.name for _, adapter in loaded} == {"serial", "norm", "ssf"}
    torch.testing.assert_close(sd.picture(fresh), sd.picture(models), rtol=0, atol=1e-5)
    assert not torch.allclose(sd.picture(fresh), plain, atol=1e-3)
    loaded.strength = 0.0
    assert torch.equal(sd.picture(fresh), plain)
    loaded.remove()
    assert torch.equal(sd.picture(fresh), plain)
    assert all(torch.equal(tensor, before[key]) for key, tensor in fresh["unet"].state_dict().items())
