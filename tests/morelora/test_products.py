"""Hadamard products and additive LoRA against other people's code, closed forms, and the figures that MoreLoRA printed."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora import ways
from morelora.adapted import Adapted
from morelora.algorithms.additive import Additive
from morelora.algorithms.hadamard import Hadamard
from morelora.algorithms.loha import LoHa
from morelora.errors import AdapterError
from morelora.load import adapter_from
from morelora.products import Products
from morelora.site import Site
from morelora.targets import AdapterConfig, resolve
from tests.morelora.closed import closed_delta
from tests.morelora.formats import sd
from tests.morelora.grid import LAYERS, example, operate, randomise

F64 = torch.float64


def hadamard(layer: nn.Module, **options: Any) -> Hadamard:
    return randomise(Hadamard(Site.of(layer), Hadamard.Options(**options)).double())


# figures


@pytest.mark.acts("adapter.k", "adapter.rank")
@pytest.mark.parametrize(
    ("shape", "rank", "k", "parameters", "found"), [((100, 100), 15, 3, 3000, 100), ((768, 1024), 16, 4, 28672, 256)]
)
def test_ranks_and_parameters_are_those_that_morelora_printed(shape, rank, k, parameters, found):
    torch.manual_seed(0)
    adapter = hadamard(nn.Linear(shape[1], shape[0]), rank=rank, k=k)
    assert sum(p.numel() for p in adapter.parameters()) == parameters
    assert torch.linalg.matrix_rank(adapter.delta(torch.empty(0))) == found


def test_additive_has_twice_the_rank():
    """The page's heading says r = 10; what it prints, 4000 parameters and rank 40, is r = 20."""
    adapter = randomise(Additive(Site.of(nn.Linear(100, 100)), Additive.Options(rank=20)).double())
    assert sum(p.numel() for p in adapter.parameters()) == 4000
    assert torch.linalg.matrix_rank(adapter.delta(torch.empty(0))) == 40


@pytest.mark.acts("adapter.nonlinear")
def test_tanh_of_one_product_has_full_rank():
    """The page prints 3 for r = 3, k = 1, 100 x 100: the bound of the product inside, not the rank of its tanh."""
    adapter = hadamard(nn.Linear(100, 100), rank=3, k=1, nonlinear="tanh")
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert sum(p.numel() for p in adapter.parameters()) == 600
    assert torch.linalg.matrix_rank(adapter.delta(torch.empty(0))) == 100


@pytest.mark.parametrize("k", range(1, 9))
def test_every_product_but_the_last_starts_with_unit_variance(k):
    adapter = Hadamard(Site(400, 300), Hadamard.Options(rank=20, k=k), torch.Generator().manual_seed(0))
    products = [left @ right for left, right in zip(*adapter.sides(), strict=True)]
    assert not products[-1].any()
    for product in products[:-1]:
        assert product.var().item() == pytest.approx(1, abs=0.2)
    assert sum(adapter.options.ranks) == 20 and all(0 <= a - b <= 1 for a, b in pairwise(adapter.options.ranks))


def test_the_first_gradient_does_not_vanish_as_with_small_factors():
    """At k = 4; small is LyCORIS' own standard deviation of a first factor."""
    norms = []
    for spread in (1.0, 0.1):
        adapter = Hadamard(Site(64, 48), Hadamard.Options(rank=16, k=4), torch.Generator().manual_seed(0))
        with torch.no_grad():
            for left in adapter.sides()[0]:
                left.mul_(spread)
        adapter.delta(torch.empty(0)).sum().backward()
        norms.append(adapter.u4.grad.norm())
    assert norms[0] > 100 * norms[1]


# other people's code


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_k_2_is_lycoris_loha(name):
    loha = pytest.importorskip("lycoris.functional").loha
    site, adapter = Site.of(LAYERS[name]), hadamard(LAYERS[name], rank=6, k=2, alpha=1.5)
    right1, right2 = (site.kernel_of(right) for right in (adapter.v1, adapter.v2))
    theirs = loha.diff_weight(right1, adapter.u1, right2, adapter.u2, None, None, gamma=torch.tensor(1.5 / 6, dtype=F64))
    torch.testing.assert_close(adapter.delta(torch.empty(0)), theirs.view(site.weight_shape), rtol=0, atol=1e-10)


def test_loha_and_hadamard_are_one_implementation():
    layer = LAYERS["linear"]
    ours, field = hadamard(layer, rank=6, k=2), LoHa(Site.of(layer), LoHa.Options(rank=3)).double()
    with torch.no_grad():
        for name, other in (("w1_a", ours.u1), ("w1_b", ours.v1), ("w2_a", ours.u2), ("w2_b", ours.v2)):
            getattr(field, name).copy_(other)
    assert type(ours.way) is type(field.way) is Products
    x = example(layer)
    torch.testing.assert_close(ours(x, layer), field(x, layer), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_half_of_additive_is_peft_miss(rank):
    """MiSS is ``u`` with ``v = 0``; peft pads as we do where the rank divides nothing."""
    peft = pytest.importorskip("peft")
    layer = nn.Linear(12, 8)
    config = peft.MissConfig(r=rank, target_modules=["layer"], init_weights=False)
    theirs = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(layer)}), config).base_model.model["layer"].double()
    adapter = Additive(Site.of(layer), Additive.Options(rank=rank)).double()
    with torch.no_grad():
        theirs.miss_block["default"].copy_(torch.randn(rank, 8))
        adapter.u.copy_(theirs.miss_block["default"].T)
    x, layer = example(layer), layer.double()
    torch.testing.assert_close(adapter(x, layer), theirs(x), rtol=0, atol=1e-10)


def test_what_additive_blocks_share_is_idle():
    """``c[i mod r, j mod r]`` added to ``u`` and taken from ``v`` changes nothing: ``r (m + c) - r^2`` degrees of freedom."""
    adapter = randomise(Additive(Site(10, 13), Additive.Options(rank=3)).double())
    before, shared = adapter.delta(torch.empty(0)).detach(), torch.randn(3, 3, dtype=F64)
    with torch.no_grad():
        adapter.u.add_(torch.stack([shared[i % 3] for i in range(10)]))
        adapter.v.sub_(torch.stack([shared[:, j % 3] for j in range(13)], 1))
    torch.testing.assert_close(adapter.delta(torch.empty(0)), before, rtol=0, atol=1e-12)


# forms of forward


@pytest.mark.parametrize("gained", [False, True], ids=["plain", "gain"])
@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_every_form_of_a_product_has_the_gradients_of_the_definition(name, gained, form):
    layer = copy.deepcopy(LAYERS[name])
    site, adapter = Site.of(layer), hadamard(layer, rank=5, k=3)
    gain = torch.rand(site.n, dtype=F64) + 0.5 if gained else None
    x = example(layer)[:1].clone()

    def run(x: Tensor, *parts: Tensor) -> Tensor:
        return ways.run(adapter.way, x, layer, parts, gain)

    parts = tuple(part.detach().clone().requires_grad_() for part in adapter.parts(1.0))
    changed = layer.weight + adapter.delta(layer.weight)
    changed = changed if gain is None else changed * site.along_input(gain)
    torch.testing.assert_close(run(x, *parts), operate(layer, x, changed), rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *parts), fast_mode=True)


@pytest.mark.parametrize("options", [{"rank": 6, "k": 2}, {"rank": 6, "k": 2, "nonlinear": "tanh"}], ids=["linear", "tanh"])
@pytest.mark.parametrize("layer", [nn.Linear(96, 64), nn.Conv2d(96, 64, 3, padding=1)], ids=["linear", "conv"])
def test_nothing_of_the_inputs_size_is_kept_for_backward(layer, options):
    from tests.morelora.test_ways import kept_beside_parameters

    adapted = Adapted(layer, Hadamard(Site.of(layer), Hadamard.Options(**options)))
    x = torch.randn((8, 512, 96) if isinstance(layer, nn.Linear) else (8, 96, 24, 24), requires_grad=True)
    assert kept_beside_parameters(adapted, x) < 0.15 * x.nbytes


@pytest.mark.parametrize("options", [{"rank": 6, "k": 3}, {"rank": 6, "k": 2, "nonlinear": "sigmoid"}], ids=["linear", "sigmoid"])
def test_a_small_change_is_not_rounded_away_in_half_precision(options):
    layer = nn.Linear(48, 40).bfloat16().requires_grad_(False)
    adapter = Hadamard(Site.of(layer), Hadamard.Options(**options), torch.Generator().manual_seed(0))
    with torch.no_grad():
        adapter.zero_factors()[0].normal_(std=1e-3)
    layer.weight.fill_(1.0)
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(1)).bfloat16()
    x[:, 0] -= x.sum(1)  # so that the frozen layer gives about nothing
    change = adapter(x, layer).float() - layer(x).float()
    expected = x.float() @ adapter.delta(layer.weight).T
    assert (change - expected).norm() < 0.5 * expected.norm()


# files


@pytest.mark.parametrize(
    ("options", "shape", "form", "rank"),
    [
        ({"rank": 5, "k": 1}, (64, 48), "lora", 5),
        ({"rank": 4, "k": 2}, (64, 48), "lora", 4),
        ({"rank": 8, "k": 2}, (128, 96), "loha", 4),
        ({"rank": 12, "k": 3}, (640, 640), "loha", 16),
        ({"rank": 16, "k": 4}, (768, 1024), "loha", 16),
        ({"rank": 12, "k": 3}, (48, 40), "full", None),
        ({"rank": 6, "k": 2, "nonlinear": "tanh"}, (640, 640), "full", None),
    ],
)
@torch.no_grad()
def test_the_file_is_the_smallest_exact_form(options, shape, form, rank):
    layer = nn.Linear(shape[1], shape[0]).double()
    adapter = hadamard(layer, alpha=3.0, **options)
    tensors = adapter.file_tensors(layer, alpha=2.0)
    again = adapter_from(layer, tensors).double()
    assert (again.name, again.name, again.file_rank) == (adapter.filed_as, form, rank) and adapter.file_rank == rank
    scale = adapter.delta(layer.weight).abs().max()
    torch.testing.assert_close(again.delta(layer.weight), closed_delta(adapter, layer.weight), rtol=0, atol=2e-6 * float(scale))


def test_plain_lora_is_refused_where_it_would_be_thicker_than_the_layer():
    assert hadamard(nn.Linear(48, 40), rank=9, k=3).factors()[0].shape == (40, 27)
    thick = hadamard(nn.Linear(48, 40), rank=12, k=3)
    assert thick.factors() is None and "64 ranks" in thick.thick[0]
    loha = LoHa(Site(40, 48), LoHa.Options(rank=7))
    assert loha.factors() is None and "49 ranks" in loha.thick[0]
    assert LoHa(Site(40, 48), LoHa.Options(rank=6)).factors()[0].shape == (40, 36)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 2, "k": 3}, r"rank \(2\) must be at least k \(3\)"),
        (
            {"rank": 6, "nonlinear": "tanh", "rank_dropout": 0.1},
            "rank_dropout has no meaning for a product of tanh, of full rank",
        ),
        ({"rank": 12, "k": 3, "rank_dropout": 0.1}, "rank_dropout has no meaning for a Hadamard product of 64 ranks"),
        ({"k": 9}, "less than or equal to 8"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Hadamard(Site(48, 40), Hadamard.Options(**options))


def test_what_is_no_product_of_factors_refuses_what_needs_one():
    with pytest.raises(
        AdapterError, match="rank 20 makes a change of rank 40, which is larger than both sides of the layer's 32 x 24"
    ):
        Additive(Site(32, 24), Additive.Options(rank=20))
    with pytest.raises(AdapterError, match="max_norm cannot limit hadamard, as it is set"):
        settings = {"algorithm": "hadamard", "nonlinear": "tanh", "max_norm": 1.0}
        resolve(sd.small(), AdapterConfig.model_validate(settings))
