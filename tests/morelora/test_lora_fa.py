"""LoRA-FA, LoRA with a frozen down factor: what trains, what is kept, and what the file holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora import ways
from morelora.adapted import Adapted
from morelora.algorithms.lora import LoRA
from morelora.errors import FormatError
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.inject import AdapterSet, inject
from morelora.load import load
from morelora.site import Site
from morelora.start import start_from
from morelora.targets import AdapterConfig, resolve
from morelora.weight_decompose import WeightDecomposed
from tests.morelora.formats import sd
from tests.morelora.grid import LAYERS, example
from tests.morelora.test_oracles import peft_layer
from tests.morelora.test_ways import PLAIN_LAYERS, parts, small_example


def fresh(models: dict[str, nn.Module], **settings: Any) -> AdapterSet:
    config = AdapterConfig.model_validate({"layers": "all", "rank": 3, "freeze_down": True} | settings)
    return inject(models, resolve(models, config), torch.Generator().manual_seed(3))


@torch.no_grad()
def trained(adapters: AdapterSet) -> AdapterSet:
    for parameter in adapters.parameters():
        parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    return adapters


@pytest.mark.acts("adapter.freeze_down")
@pytest.mark.parametrize("tucker", [False, True])
def test_up_alone_trains_and_is_all_that_a_checkpoint_holds(tucker):
    models = sd.small()
    adapters = trained(fresh(models, tucker=tucker))
    ups = {f"{name}.up" for name in adapters.layers}
    assert {name for name, _ in adapters.named_parameters()} == set(adapters.state()) == ups
    assert sum(p.numel() for p in adapters.parameters()) == sum(3 * layer.site.m for layer in adapters.layers.values())
    expected = dict(adapters.deltas())
    again = fresh(sd.small(), tucker=tucker)  # a resumed run: the same seed, then the state
    again.load_state(adapters.state())
    assert all(torch.equal(change, expected[name]) for name, change in again.deltas())


def test_the_file_is_a_whole_lora(tmp_path):
    adapters = trained(fresh(sd.small()))
    tensors = {key: tensor.detach().contiguous() for key, tensor in FORMS["webui"](adapters).items()}
    write(tmp_path / "x.safetensors", tensors, {})
    assert sum(key.endswith("lora_down.weight") for key in tensors) == len(adapters)
    assert sd.worst(dict(load(sd.small(), tmp_path / "x.safetensors").deltas()), dict(adapters.deltas())) < 1e-6
    with pytest.raises(FormatError, match="lora in the file, lora with frozen factors of its own here"):
        start_from(fresh(sd.small()), tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_steps_are_those_of_pefts_lora_with_a_frozen_a(name):
    theirs = peft_layer("lora", copy.deepcopy(LAYERS[name]), 3, 1.5).eval()
    theirs.lora_A.requires_grad_(False)
    layer = copy.deepcopy(LAYERS[name])
    lora = LoRA(Site.of(layer), LoRA.Options(rank=3, alpha=1.5, freeze_down=True)).double()
    up, other = lora.up, theirs.lora_B["default"].weight
    with torch.no_grad():
        up.copy_(other.reshape(up.shape))
        lora.down.copy_(theirs.lora_A["default"].weight.reshape(lora.down.shape))
    x, ours = example(layer), Adapted(layer, lora)
    optimizer = torch.optim.SGD([*lora.parameters(), other], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        for model in (ours, theirs):
            model(x).square().sum().backward()
        optimizer.step()
        torch.testing.assert_close(up, other.reshape(up.shape), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("gained", [True, False])
@pytest.mark.parametrize("needs_x", [True, False])
@pytest.mark.parametrize("name", PLAIN_LAYERS)
def test_gradcheck(name, gained, needs_x):
    layer, site, up, down, gain = parts(name, gained=gained)
    x = small_example(layer).requires_grad_(needs_x)

    def run(x: Tensor, up: Tensor, gain: Tensor | None = None) -> Tensor:
        return ways.run(ways.LowRank(site, keeps_input=False), x, layer, (up, down.detach()), gain)

    assert torch.autograd.gradcheck(run, (x, up) if gain is None else (x, up, gain))


@pytest.mark.parametrize("layer", [nn.Linear(96, 64), nn.Conv2d(96, 64, 3, padding=1)], ids=["linear", "conv"])
def test_the_input_is_not_kept_for_backward(layer):
    x = torch.randn((8, 512, 96) if isinstance(layer, nn.Linear) else (8, 96, 24, 24), requires_grad=True)
    kept = {frozen: kept_bytes(Adapted(layer, lora(layer, frozen)), x) for frozen in (True, False)}
    assert kept[True] < 0.1 * x.nbytes and kept[False] >= x.nbytes
    magnitudes = WeightDecomposed(lora(layer, True), layer.weight)
    assert kept_bytes(Adapted(layer, magnitudes), x) > x.nbytes  # they need it


def lora(layer: nn.Module, frozen: bool) -> LoRA:
    return LoRA(Site.of(layer), LoRA.Options(rank=2, freeze_down=frozen))


def kept_bytes(adapted: Adapted, x: Tensor) -> int:
    """Bytes that autograd keeps, in storages that belong to no parameter."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*adapted.parameters(), *adapted.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = adapted(x)
    del result
    return sum(kept.values())
