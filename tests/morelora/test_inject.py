"""Adapters in a model: nesting, removal in any order, merging, state, copies, autocast, gradient checkpointing."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morelora.adapted import Adapted
from morelora.errors import AdapterError
from morelora.inject import AdapterSet, attach, build, inject
from morelora.registry import ALGORITHMS
from morelora.targets import AdapterConfig, Target, resolve
from tests.morelora.closed import closed_delta
from tests.morelora.grid import NEED_SQUARES, randomise
from tests.morelora.model import TinyUNet, latents

NAME = "unet.block.transformer_blocks.0.attn1.to_out.0"


def trained(models: dict[str, nn.Module], seed: int = 2, **settings: Any) -> AdapterSet:
    """A set with random values; small, so that several may stand on one another."""
    config = AdapterConfig(layers="all", **settings)
    adapters = inject(models, resolve(models, config), torch.Generator().manual_seed(0))
    dtype = models["unet"].conv_in.weight.dtype
    for _, adapter in adapters:
        randomise(adapter.to(torch.promote_types(dtype, torch.float32)), seed)
    return adapters


def fitting(algorithm: str, **wanted: Any) -> dict[str, Any]:
    """The settings that the algorithm has; the plain ones only where it is not decomposed."""
    kind = ALGORITHMS[algorithm]
    if wanted.get("weight_decompose") and not kind.decomposes:
        wanted["weight_decompose"] = False
    if algorithm in NEED_SQUARES:
        wanted["rules"] = ({"match": "resnets", "algorithm": "none"},)
    known = kind.Options.model_fields.keys() | AdapterConfig.model_fields.keys()
    return {"algorithm": algorithm} | {name: value for name, value in wanted.items() if name in known}


@pytest.fixture
def models() -> dict[str, nn.Module]:
    return {"unet": TinyUNet().double()}


def weights(models: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in models["unet"].state_dict().items()}


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_only_the_adapters_train_and_unadapted_layers_stay(models: dict[str, nn.Module]) -> None:
    before = {id(module) for module in models["unet"].modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    adapters = trained(models)
    inside = {id(p) for p in adapters.parameters()}
    names = {f"unet.{n}" for n, p in models["unet"].named_parameters() if p.requires_grad and id(p) not in inside}
    untouched = ("conv_in", "conv_out", "block.transformer_blocks.0.norm1")
    assert names == {f"unet.{layer}.{leaf}" for layer in untouched for leaf in ("weight", "bias")}
    after = {id(m) for name, m in models["unet"].named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert before == after and len(adapters) == 6


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_sets_nest_in_loading_order_and_leave_in_any(models: dict[str, nn.Module], order: tuple[int, ...]) -> None:
    """``W -> W + t1 delta1(W) -> ...``; after each removal the rest is the formula of the rest; at last the base, bit for bit."""
    before, x = weights(models), latents().double()
    sets = [
        trained(models, 2, rank=2, alpha=1.0),
        trained(models, 3, algorithm="lokr", rank=1, factor=2, weight_decompose=True),
        trained(models, 4, algorithm="loha", rank=2, weight_decompose=True, decompose_axis="output"),
    ]
    for one, strength in zip(sets, (0.7, 1.0, 0.4), strict=True):
        one.strength = strength
    present = list(sets)
    for index in order:
        assert_sequential(models, present, before, x)
        sets[index].remove()
        present.remove(sets[index])
    assert_sequential(models, present, before, x)
    assert_same_bits(weights(models), before)


def assert_sequential(models: dict[str, nn.Module], sets: list[AdapterSet], base: dict[str, Tensor], x: Tensor) -> None:
    plain = TinyUNet().double()
    state = dict(base)
    for one in sets:
        for name, adapter in one:
            key = f"{name.removeprefix('unet.')}.weight"
            state[key] = state[key] + one.strength * closed_delta(adapter, state[key]).detach()
    plain.load_state_dict(state)
    torch.testing.assert_close(models["unet"](x), plain(x), rtol=1e-9, atol=1e-9)


def test_merged_sets_come_off_in_turn_only(models: dict[str, nn.Module]) -> None:
    before, x = weights(models), latents().double()
    first, second = trained(models, 2), trained(models, 3, algorithm="loha", rank=2)
    expected = models["unet"](x)
    with pytest.raises(AdapterError, match="stands on another one: merge that one first"):
        second.merge()
    first.merge()
    second.merge()
    torch.testing.assert_close(models["unet"](x), expected, rtol=0, atol=1e-9)
    with pytest.raises(AdapterError, match="merged already"):
        first.merge()
    for undo in (first.unmerge, first.remove):
        with pytest.raises(AdapterError, match="merged on top"):
            undo()
    torch.testing.assert_close(models["unet"](x), expected, rtol=0, atol=1e-9)
    second.unmerge()
    torch.testing.assert_close(models["unet"](x), expected, rtol=0, atol=1e-9)
    first.unmerge()
    torch.testing.assert_close(models["unet"](x), expected, rtol=0, atol=1e-9)
    first.remove()
    second.remove()
    assert_same_bits(weights(models), before)


def test_a_half_precision_base_comes_back_bit_for_bit() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        models: dict[str, nn.Module] = {"unet": TinyUNet().to(dtype)}
        before = weights(models)
        adapters = trained(models, weight_decompose=True)
        assert {p.dtype for p in adapters.parameters()} == {torch.float32}
        adapters.merge()
        merged = models["unet"].block.resnets[0].conv1.base.weight
        key, adapter = "block.resnets.0.conv1", dict(adapters)["unet.block.resnets.0.conv1"]
        expected = before[f"{key}.weight"].float() + closed_delta(adapter, before[f"{key}.weight"].float())
        assert torch.allclose(merged.float(), expected.to(dtype).float(), rtol=1e-2, atol=1e-6)
        adapters.remove()
        assert_same_bits(weights(models), before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_state_round_trip_and_deepcopy(models: dict[str, nn.Module], algorithm: str) -> None:
    adapters, x = trained(models, **fitting(algorithm, rank=3, weight_decompose=True)), latents().double()
    expected = models["unet"](x)
    state = {name: tensor.clone() for name, tensor in adapters.state().items()}
    kept = {name: adapter.state_dict().keys() for name, adapter in adapters}  # what comes from the seed again is not there
    frozen = {f"{name}.{leaf}" for name, adapter in adapters for leaf, _ in adapter.named_buffers() if leaf in kept[name]}
    assert set(state) == {name for name, _ in adapters.named_parameters()} | frozen
    twin = copy.deepcopy(models["unet"])
    for _, adapter in adapters:
        randomise(adapter, 9)
    assert not torch.allclose(models["unet"](x), expected)
    assert torch.equal(twin(x), expected)
    adapters.load_state(state)
    assert torch.equal(models["unet"](x), expected)
    assert all(torch.equal(tensor, state[name]) for name, tensor in adapters.state().items())


def test_a_state_that_does_not_fit_is_refused_whole(models: dict[str, nn.Module]) -> None:
    adapters = trained(models)
    state = {name: tensor.clone() for name, tensor in adapters.state().items()}
    first = next(iter(state))
    for broken in (
        {name: tensor for name, tensor in state.items() if name != first},
        state | {"unet.extra.up": torch.zeros(1)},
        state | {first: torch.zeros(1, 1)},
    ):
        with pytest.raises(AdapterError, match="does not fit these adapters.*1 in all"):
            adapters.load_state(broken)
    assert all(torch.equal(tensor, state[name]) for name, tensor in adapters.state().items())


def test_deltas_and_max_norm_over_the_set(models: dict[str, nn.Module]) -> None:
    adapters = trained(models)
    before = dict(adapters.deltas())
    limit = sorted(delta.norm().item() for delta in before.values())[2] * 1.001
    adapters.limit_norm(limit)
    for name, delta in adapters.deltas():
        norm = before[name].norm()
        expected = before[name] * min(1.0, limit / norm.item())
        torch.testing.assert_close(delta, expected, rtol=1e-5, atol=1e-7)


def test_targets_that_do_not_fit_name_the_layer(models: dict[str, nn.Module]) -> None:
    options = ALGORITHMS["lokr"].Options(full_matrix=True, rank_dropout=0.1)
    with pytest.raises(AdapterError, match=rf"^{NAME}: rank_dropout has no meaning"):
        build(Target(NAME, "lokr", options), models["unet"].block.transformer_blocks[0].attn1.to_out[0])


def test_start_depends_on_the_generator_alone(models: dict[str, nn.Module]) -> None:
    targets = resolve(models, AdapterConfig(layers="all"))
    layers = {t.name: models["unet"].get_submodule(t.path) for t in targets}
    one, two = ([build(t, layers[t.name], torch.Generator().manual_seed(5)) for t in targets] for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def gradients(model: nn.Module, adapters: AdapterSet, x: Tensor, checkpointed: bool = False) -> list[Tensor]:
    for parameter in adapters.parameters():
        parameter.grad = None
    y = checkpoint(model, x, use_reentrant=False) if checkpointed else model(x)
    y.float().square().mean().backward()
    return [parameter.grad.clone() for parameter in adapters.parameters()]


@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradient_checkpointing_gives_the_same_gradients(models: dict[str, nn.Module], algorithm: str, decompose: bool) -> None:
    settings = fitting(algorithm, rank=3, weight_decompose=decompose, dropout=0.3)
    adapters, x = trained(models, **settings), latents().double()
    models["unet"].train()
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(12)
        results.append(gradients(models["unet"], adapters, x, checkpointed))
    for plain, again in zip(*results, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(again, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_autocast_to_bfloat16(algorithm: str, decompose: bool, base_dtype: torch.dtype) -> None:
    """bf16 results of the right dtype near the fp32 ones; factors and their gradients stay fp32."""
    models: dict[str, nn.Module] = {"unet": TinyUNet()}
    adapters = trained(models, **fitting(algorithm, rank=3, weight_decompose=decompose))
    with torch.no_grad():
        for parameter in adapters.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.5)
    x = latents()
    exact, exact_grads = models["unet"](x), gradients(models["unet"], adapters, x)
    frozen = [p for p in models["unet"].parameters() if id(p) not in {id(q) for q in adapters.parameters()}]
    for parameter in frozen:
        parameter.data = parameter.data.to(base_dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = models["unet"](x)
        grads = gradients(models["unet"], adapters, x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).norm() < 0.03 * exact.norm()
    for found, expected in zip(grads, exact_grads, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.12 * expected.norm() + 1e-6


def test_attach_and_strength(models: dict[str, nn.Module]) -> None:
    x = latents().double()
    base = models["unet"](x)
    adapters = attach(models, {NAME: randomise(build(Target(NAME, "lora", ALGORITHMS["lora"].Options(rank=2)), layer(models)))})
    assert isinstance(layer(models), Adapted) and adapters.strength == 1.0
    assert layer(models).in_features == 16  # attributes of the frozen layer shine through
    full = models["unet"](x)
    adapters.strength = 0.0
    assert torch.equal(models["unet"](x), base)
    adapters.strength = 1.0
    assert torch.equal(models["unet"](x), full) and not torch.allclose(full, base)


def layer(models: dict[str, nn.Module]) -> nn.Module:
    return models["unet"].block.transformer_blocks[0].attn1.to_out[0]
