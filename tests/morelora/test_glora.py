"""GLoRA against LyCORIS' module, its factors for a given weight, its files in both orders, half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.algorithms.glora import LEAVES, GLoRA, in_order
from morelora.errors import AdapterError
from morelora.formats import FORMS, encode
from morelora.formats.sidecar import NOTICE, notice
from morelora.load import adapter_from
from morelora.site import Site
from tests.morelora.formats import sd
from tests.morelora.grid import LAYERS, example, randomise

F64 = torch.float64
NAMES = ["linear", "odd linear without bias", "conv 1x1", "conv 3x3 stride 2"]  # LyCORIS forgets the dilation of the others


def glora(layer: nn.Module, **options: Any) -> GLoRA:
    """With random values, as after training."""
    return randomise(GLoRA(Site.of(layer), GLoRA.Options(**{"rank": 3, "alpha": 1.5} | options)).double())


# the change


@pytest.mark.parametrize("rs", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_change_output_and_gradients_are_lycoris(name: str, rs: bool) -> None:
    lycoris = pytest.importorskip("lycoris.modules.glora")
    layer = copy.deepcopy(LAYERS[name]).requires_grad_(False)
    ours = glora(layer, rs=rs)
    theirs = lycoris.GLoRAModule("x", layer, lora_dim=3, alpha=1.5, rs_lora=rs, bypass_mode=True).double()
    pairs = [(getattr(ours, leaf), getattr(theirs, leaf).weight) for leaf in ("a1", "a2", "b1", "b2")]
    with torch.no_grad():
        for mine, other in pairs:
            other.copy_(mine.reshape(other.shape))
    torch.testing.assert_close(ours.delta(layer.weight), theirs.get_diff_weight()[0], rtol=0, atol=1e-10)
    found, x = [], example(layer)
    for forward, own in ((Adapted(layer, ours), [p[0] for p in pairs]), (theirs.bypass_forward, [p[1] for p in pairs])):
        given = x.clone().requires_grad_()
        y = forward(given)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), [given, *own])])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine.reshape(other.shape), other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_gradcheck(name: str, gained: bool, form: str) -> None:
    layer = copy.deepcopy(LAYERS[name]).requires_grad_(False)
    adapter, x = glora(layer, rank=2), example(layer)
    x = (x[:1, :, :4, :4] if x.dim() == 4 else x[:1, :2]).clone().requires_grad_()
    gain = torch.rand(adapter.site.n, dtype=F64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    names, values = zip(*adapter.named_parameters(), strict=True)

    def run(x: Tensor, gain: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(adapter, given, (x, layer), {"gain": gain if gained else None})

    assert torch.autograd.gradcheck(run, (x, gain, *values), fast_mode=True)


@pytest.mark.parametrize(("name", "ranks"), [("linear", 4), ("conv 1x1", 4), ("conv 3x3 stride 2", 6)])
def test_the_factors_have_twice_the_rank_and_on_a_kernel_no_more_than_the_layer(name: str, ranks: int) -> None:
    layer = LAYERS[name]
    adapter = glora(layer, rank=2)
    up, down = adapter.factors_of(layer.weight)
    torch.testing.assert_close((up @ down).view(layer.weight.shape), adapter.delta(layer.weight), rtol=0, atol=1e-12)
    assert up.shape[1] == adapter.file_rank == ranks
    assert torch.linalg.matrix_rank(adapter.delta(layer.weight).flatten(1)) == ranks
    assert adapter.factors_of(2 * layer.weight)[0].shape == up.shape
    wide = nn.Conv2d(16, 48, 3).double()
    assert glora(wide, rank=2).factors_of(wide.weight)[0].shape == (48, 2 * 10) and glora(wide, rank=2).file_rank == 20


def test_half_precision_keeps_a_change_of_the_inputs_that_a_sum_with_them_would_lose() -> None:
    """Of inputs of 8, bfloat16 has steps of a sixteenth."""
    layer = nn.Linear(2, 2, bias=False).bfloat16()
    adapter = GLoRA(Site.of(layer), GLoRA.Options(rank=1))
    with torch.no_grad():
        layer.weight.fill_(1.0)
        adapter.a1.copy_(torch.tensor([[1.0], [0.0]]))
        adapter.a2.copy_(torch.tensor([[1e-3, -1e-3]]))
        x = torch.tensor([[8.0, -8.0]], dtype=torch.bfloat16).repeat(128, 1)
        inside = x + x @ adapter.a2.T.bfloat16() @ adapter.a1.T.bfloat16()
        assert torch.equal(inside, x) and not layer(x).any()
        found = Adapted(layer, adapter)(x)
    torch.testing.assert_close(found.float(), torch.full((128, 2), 0.016), rtol=1e-2, atol=0)


# files


def test_own_tensors_come_back_in_either_order_and_of_a_square_layer_the_thinner_product_is_meant() -> None:
    for layer in (LAYERS["linear"], nn.Linear(9, 9).double(), LAYERS["conv 3x3 stride 2"]):
        adapter = glora(layer)
        own = {leaf: tensor.detach() for leaf, tensor in adapter.tensors(1.0).items()}
        old = own | {a: own[b] for a, b in zip(LEAVES, (LEAVES[1], LEAVES[0], LEAVES[3], LEAVES[2]), strict=True)}
        for tensors in (own, old):
            again = adapter_from(layer, tensors).double()
            torch.testing.assert_close(again.delta(layer.weight), adapter.delta(layer.weight), rtol=0, atol=1e-6)
    assert own["alpha"] == 3 and own["a1.weight"].shape == (8, 3, 1, 1) and own["b2.weight"].shape == (3, 8, 3, 3)


def test_tensors_that_do_not_multiply_are_refused_by_their_shapes() -> None:
    own = {leaf: tensor.detach() for leaf, tensor in glora(LAYERS["linear"]).tensors(1.0).items()}
    with pytest.raises(AdapterError, match=r"a1.weight.*do not multiply: \(12, 3\), \(3, 12\), \(8, 3\), \(2, 12\)"):
        in_order(own | {"b2.weight": own["b2.weight"][:2]})
    with pytest.raises(AdapterError, match="do not multiply"):
        in_order(own | {"b2.weight": own["b2.weight"][0]})
    with pytest.raises(AdapterError, match="b1.weight is missing"):
        in_order({leaf: tensor for leaf, tensor in own.items() if leaf != "b1.weight"})
    with pytest.raises(AdapterError, match=r"b1.weight has shape \(8, 3\), but this layer needs \(5, 3\)"):
        GLoRA.from_tensors(Site(5, 12), own)


def test_the_file_for_web_uis_is_a_plain_lora_for_its_base_and_the_own_one_is_smaller_where_there_are_kernels() -> None:
    adapters = sd.trained(sd.small(), algorithm="glora", rank=2, layers="all")
    webui = FORMS["webui"](adapters)
    assert {key.partition(".")[2] for key in webui} == {"lora_up.weight", "lora_down.weight", "alpha"}
    own = encode(adapters, "auto", ("comfyui", "forge", "lycoris"))
    assert own.form == "sidecar" and encode(adapters, "auto", ("a1111", "comfyui")).form == "lora"
    sizes = [sum(tensor.numel() for tensor in tensors.values()) for tensors in (own.tensors, webui)]
    assert sizes[0] < 0.5 * sizes[1]
    assert own.metadata()["morelora.readers"] == "sidecar file: of other programs forge, comfyui, lycoris read it"
    assert notice({"lora_unet_a.serial_up": torch.zeros(1)}) == NOTICE
