"""DyLoRA: one scale in training and in files, which ranks learn, LyCORIS' blocks, LoRA at the whole rank."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.algorithms.dylora import DyLoRA
from morelora.algorithms.lora import LoRA
from morelora.errors import AdapterError
from morelora.load import adapter_from
from morelora.procedure import Procedures
from morelora.site import Site
from tests.morelora.grid import LAYERS, example, operate, randomise

NAMES = ["linear", "conv 3x3 stride 2"]


def made(name: str = "linear", **options) -> DyLoRA:  # noqa: ANN003
    adapter = DyLoRA(Site.of(LAYERS[name]), DyLoRA.Options(**{"rank": 6, "alpha": 3.0} | options)).double()
    return randomise(adapter)


def truncated(adapter: DyLoRA, rank: int) -> Tensor:
    """The paper's equation: ``alpha / b`` times the product of the first ``b`` columns and rows."""
    return (3.0 / rank * adapter.up[:, :rank] @ adapter.down[:rank]).reshape(adapter.site.weight_shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [1, 4, 6])
def test_training_preview_and_file_are_one_change_at_each_rank(name: str, rank: int) -> None:
    adapter, layer = made(name), LAYERS[name]
    adapted, x = Adapted(layer, adapter).train(), example(LAYERS[name])
    expected = operate(layer, x, layer.weight + truncated(adapter, rank))
    adapter.drawn = rank
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=1e-10)
    adapter.kept = rank
    torch.testing.assert_close(adapted.eval()(x), expected, rtol=0, atol=1e-10)
    file = {leaf: tensor.detach() for leaf, tensor in adapter.tensors(alpha=5.0).items()}
    assert adapter.file_rank == rank == len(file["lora_down.weight"])
    again = adapter_from(layer, file)
    torch.testing.assert_close(again.delta(layer.weight).double(), truncated(adapter, rank), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rs", [False, True])
def test_at_the_whole_rank_it_is_lora(rs: bool) -> None:
    ours = made(rs=rs)
    theirs = LoRA(ours.site, LoRA.Options(rank=6, alpha=3.0, rs=rs)).double()
    with torch.no_grad():
        theirs.up.copy_(ours.up)
        theirs.down.copy_(ours.down)
    ours.train().drawn = 6
    for found, expected in zip(ours.parts(1.0), theirs.parts(1.0), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.acts("adapter.mode", "adapter.unit")
@pytest.mark.parametrize(("mode", "learning"), [("normal", slice(0, 4)), ("frozen", slice(2, 4))])
def test_only_the_ranks_of_the_mode_learn(mode: str, learning: slice) -> None:
    adapter = made(mode=mode, unit=2).train()
    adapter.drawn = 4
    up, down = adapter.parts(1.0)
    weight = torch.randn(8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (up @ down * weight).sum().backward()
    for gradient, expected in ((adapter.up.grad, 0.75 * weight @ down.T), (adapter.down.grad.T, 0.75 * weight.T @ (up / 0.75))):
        wanted = torch.zeros_like(gradient)
        wanted[:, learning] = expected[:, learning]
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_product_and_what_is_frozen_are_lycoris(block: int) -> None:
    """Of LyCORIS' module at ``block``; its scale, alpha over the number of blocks, is left out: its own files hold another."""
    lycoris = pytest.importorskip("lycoris.modules.dylora")
    theirs = lycoris.DyLoraModule("x", nn.Linear(12, 8), lora_dim=6, alpha=3.0, block_size=2).double()
    ours = made(mode="frozen", unit=2).train()
    with torch.no_grad():
        for i in range(3):
            theirs.up_list[i].copy_(ours.up[:, 2 * i : 2 * i + 2])
            theirs.down_list[i].copy_(ours.down[2 * i : 2 * i + 2])
    ours.drawn = 2 * (block + 1)
    down, up, _ = theirs.get_weight(2 * block)
    mine = ours.parts(1.0)
    scale = ours.options.scale_at(ours.drawn)
    torch.testing.assert_close(mine[0] @ mine[1], scale * up @ down, rtol=0, atol=1e-10)
    (mine[0] @ mine[1] / scale).square().sum().backward()
    (up @ down).square().sum().backward()
    for i in range(3):
        gradient = theirs.up_list[i].grad
        wanted = torch.zeros(8, 2, dtype=torch.float64) if gradient is None else gradient
        torch.testing.assert_close(ours.up.grad[:, 2 * i : 2 * i + 2], wanted, rtol=1e-10, atol=1e-10)


def test_one_share_of_the_rank_is_drawn_for_all_layers_and_each_as_often() -> None:
    layers = {"unet.a": made(unit=2), "unet.b": made(rank=2, unit=2), "unet.c": made(rank=4, unit=2)}
    procedures = Procedures.of(layers, 10)
    torch.manual_seed(0)
    drawn = []
    for _ in range(300):
        procedures.batch(torch.zeros(1), 1000)
        drawn.append(tuple(adapter.drawn for adapter in layers.values()))
    assert set(drawn) == {(2, 2, 2), (4, 2, 4), (6, 2, 4)}
    assert all(70 < drawn.count(ranks) < 130 for ranks in set(drawn))


def test_the_search_offers_every_rank_and_keeps_the_chosen_one() -> None:
    layers = {"unet.a": made(unit=2, search="training"), "unet.b": made(rank=2, unit=2, search="training")}
    (_, procedure), *_ = Procedures.of(layers, 10)
    assert dict(procedure.search.choices) == {1: "rank 2", 2: "rank 4", 3: "rank 6"}
    procedure.choose(2)
    assert [adapter.file_rank for adapter in layers.values()] == [4, 2]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="rank .6. must be a multiple of unit .4."):
        DyLoRA.Options(rank=6, unit=4)
    with pytest.raises(ValueError, match="search_tolerance has no effect"):
        DyLoRA.Options(search_tolerance=0.1)
    layers = {"unet.a": made(), "unet.b": made(unit=2)}
    with pytest.raises(AdapterError, match="unet.b: unit is one for all layers of dylora"):
        Procedures.of(layers, 10)
