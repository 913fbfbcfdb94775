"""VeRA beside peft's: start, outputs, steps; its gradients; what it holds and what its file holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from morelora.adapted import Adapted
from morelora.algorithms.vera import VeRA
from morelora.errors import AdapterError
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.inject import AdapterSet, inject
from morelora.load import load
from morelora.site import Site
from morelora.targets import AdapterConfig, Target, resolve
from tests.morelora.formats import sd
from tests.morelora.grid import LAYERS, example, randomise
from tests.morelora.test_lora_fa import kept_bytes

RANK, START, SEED = 5, 0.3, 11


def peft_model(layers: dict[str, nn.Module]) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.VeraConfig(r=RANK, d_initial=START, projection_prng_key=SEED, target_modules=list(layers))
    return peft.get_peft_model(nn.ModuleDict(copy.deepcopy(layers)), config).base_model.model


def ours(layers: dict[str, nn.Module]) -> AdapterSet:
    model, options = nn.ModuleDict(layers), VeRA.Options(rank=RANK, d_initial=START)
    targets = [Target(f"unet.{name}", "vera", options) for name in layers]
    return inject({"unet": model}, targets, torch.Generator().manual_seed(SEED))


@pytest.mark.acts("adapter.d_initial")
def test_the_start_is_pefts() -> None:
    """Of layers of one shape: peft's one pair of factors is then of that shape, from the same generator."""
    layers = {name: nn.Linear(12, 8) for name in ("one", "two")}
    theirs = peft_model(layers)
    for name, adapter in ours(layers):
        other = theirs[name.removeprefix("unet.")]
        pairs = {
            "down": other.vera_A["default"],
            "up": other.vera_B["default"],
            "u": other.vera_lambda_d["default"],
            "v": other.vera_lambda_b["default"],
        }
        for leaf, tensor in pairs.items():
            torch.testing.assert_close(getattr(adapter, leaf), tensor, rtol=0, atol=1e-6)


def test_outputs_and_steps_are_pefts() -> None:
    """Layers of several shapes, of which peft cuts the factors out of one pair; vectors from the start on, plain descent."""
    layers: dict[str, nn.Module] = {"wide": nn.Linear(12, 8), "bare": nn.Linear(7, 9, bias=False), "again": nn.Linear(12, 8)}
    theirs = peft_model(layers).double()
    model = nn.ModuleDict({name: layer.double() for name, layer in layers.items()})
    adapters = ours(dict(model.items()))
    for name, layer in adapters.layers.items():
        adapter, other = layer.adapter.double(), theirs[name.removeprefix("unet.")]
        adapter.down.copy_(other.vera_A["default"][:, : layer.site.n])
        adapter.up.copy_(other.vera_B["default"][: layer.site.m])
    vectors = [parameter for name, parameter in theirs.named_parameters() if "vera_lambda" in name]
    optimizer = torch.optim.SGD([*adapters.parameters(), *vectors], lr=0.02)
    for _ in range(4):
        optimizer.zero_grad()
        for name, layer in adapters.layers.items():
            x = example(layer.base)
            mine, other = layer(x), theirs[name.removeprefix("unet.")](x)
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
            ((mine - 1).square().sum() + (other - 1).square().sum()).backward()
        optimizer.step()
    for name, layer in adapters.layers.items():
        other = theirs[name.removeprefix("unet.")]
        assert layer.adapter.v.abs().max() > 0.01 and (layer.adapter.u - START).abs().max() > 1e-3
        torch.testing.assert_close(layer.adapter.delta(layer.base.weight), other.get_delta_weight("default"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_gradcheck(name: str) -> None:
    adapted = Adapted(LAYERS[name], randomise(VeRA(Site.of(LAYERS[name]), VeRA.Options(rank=3)).double()))
    x = example(LAYERS[name])[:1].requires_grad_()

    def run(x: Tensor, u: Tensor, v: Tensor) -> Any:
        return functional_call(adapted, {"adapter.u": u, "adapter.v": v}, (x,))

    assert torch.autograd.gradcheck(run, (x, adapted.adapter.u, adapted.adapter.v))


def test_the_input_is_not_kept_for_backward() -> None:
    layer, x = nn.Linear(96, 64), torch.randn(8, 512, 96, requires_grad=True)
    adapter = VeRA(Site.of(layer), VeRA.Options(rank=4))
    assert kept_bytes(Adapted(layer, adapter), x) < 0.1 * x.nbytes


def vera(models: dict[str, nn.Module], seed: int = 3) -> AdapterSet:
    config = AdapterConfig.model_validate({"algorithm": "vera", "layers": "all", "rank": 4})
    return inject(models, resolve(models, config), torch.Generator().manual_seed(seed))


def test_a_checkpoint_has_the_vectors_alone_and_the_seed_gives_the_factors_again() -> None:
    adapters, again, other = vera(sd.small()), vera(sd.small()), vera(sd.small(), seed=4)
    assert {name.rpartition(".")[2] for name in adapters.state()} == {"u", "v"}
    assert sum(t.numel() for t in adapters.state().values()) == sum(4 + layer.site.m for layer in adapters.layers.values())
    for name, adapter in adapters:
        for leaf in ("up", "down"):
            assert torch.equal(getattr(adapter, leaf), getattr(again.layers[name].adapter, leaf))
            assert not torch.equal(getattr(adapter, leaf), getattr(other.layers[name].adapter, leaf))


@pytest.mark.parametrize("form", ["webui", "lora", "diffusers", "diff", "sidecar"])
@torch.no_grad()
def test_every_form_of_file_gives_the_same_change_back(form: str, tmp_path) -> None:  # noqa: ANN001
    adapters = vera(sd.small())
    for _, adapter in adapters:
        randomise(adapter)
    write(tmp_path / "x.safetensors", {key: t.detach().contiguous() for key, t in FORMS[form](adapters).items()}, {})
    assert sd.worst(dict(load(sd.small(), tmp_path / "x.safetensors").deltas()), dict(adapters.deltas())) < 1e-6


def test_a_rank_that_no_file_could_hold_is_refused() -> None:
    with pytest.raises(AdapterError, match="rank 64 is larger than both sides of the layer's 8 x 12 weight"):
        VeRA(Site.of(LAYERS["linear"]), VeRA.Options())
