"""Dropout, rank dropout and module dropout: one definition each, by value."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import BranchOptions, FactorOptions
from morelora.algorithms.glora import GLoRA
from morelora.algorithms.lokr import LoKr
from morelora.errors import AdapterError
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.weight_decompose import WeightDecomposed
from tests.morelora.closed import closed_delta
from tests.morelora.grid import EVERY, LAYERS, NEED_SQUARES, SQUARES, example, operate, randomise

LAYER_NAMES = ["wide linear", "conv 3x3 stride 2"]
CHANCE = 0.4
RANKED = [name for name, kind in ALGORITHMS.items() if issubclass(kind.Options, FactorOptions)]
"""Algorithms with factors; dropout of inputs and ranks is theirs."""
BRANCHED = [name for name, kind in ALGORITHMS.items() if issubclass(kind.Options, BranchOptions)]
"""Algorithms beside the frozen layer; dropout of inputs is theirs."""


def layers_for(algorithm: str) -> list[str]:
    """Names of a linear layer and a convolution that the algorithm is defined for."""
    return list(SQUARES) if algorithm in NEED_SQUARES else LAYER_NAMES


def adapted(name: str, algorithm: str, axis: str | None = None, **options: float) -> Adapted:
    layer = copy.deepcopy(EVERY[name])
    kind = ALGORITHMS[algorithm]
    special = {"lokr": {"rank": 1, "factor": 2}, "hadamard": {"rank": 4, "k": 2}}
    own = special.get(algorithm, {"rank": 2} if "rank" in kind.Options.model_fields else {})
    adapter = kind(Site.of(layer), kind.Options(**own, **options)).double()
    randomise(adapter)
    return Adapted(layer, WeightDecomposed(adapter, layer.weight, axis).double() if axis else adapter).train()


def branch(layer: Adapted, x: Tensor) -> Tensor:
    """What the adapter adds, from the definition: the operation with the change, without bias."""
    return operate(layer.base, x, closed_delta(layer.adapter, layer.base.weight)) - operate(
        layer.base, x, torch.zeros_like(layer.base.weight)
    )


@pytest.mark.acts("adapter.dropout")
@pytest.mark.parametrize(("algorithm", "name"), [(a, name) for a in BRANCHED for name in layers_for(a)])
def test_dropout_drops_inputs_of_the_branch_only(algorithm: str, name: str) -> None:
    layer, x = adapted(name, algorithm, dropout=CHANCE), example(EVERY[name])
    torch.manual_seed(4)
    found = layer(x)
    torch.manual_seed(4)
    mask = nn.functional.dropout(torch.ones_like(x), CHANCE)
    assert 0.4 < (mask > 0).double().mean() < 0.8
    torch.testing.assert_close(found, layer.base(x) + branch(layer, x * mask), rtol=0, atol=1e-10)


@pytest.mark.parametrize("algorithm", RANKED)
@pytest.mark.parametrize("name", LAYER_NAMES)
def test_dropout_has_the_right_expectation_and_none_in_eval(name: str, algorithm: str) -> None:
    for options in ({"dropout": CHANCE}, {"rank_dropout": CHANCE}):
        layer, x = adapted(name, algorithm, **options), example(LAYERS[name])
        whole = layer.base(x) + branch(layer, x)
        with torch.no_grad():
            torch.manual_seed(8)
            mean = sum(layer(x) for _ in range(800)) / 800
        spread = (whole - layer.base(x)).abs().max()
        assert (mean - whole).abs().max() < 0.2 * spread
        assert (layer(x) - whole).abs().max() > 0.2 * spread
        torch.testing.assert_close(layer.eval()(x), whole, rtol=0, atol=1e-10)


@pytest.mark.acts("adapter.rank_dropout")
@pytest.mark.parametrize("algorithm", RANKED)
@pytest.mark.parametrize("name", LAYER_NAMES)
def test_rank_dropout_drops_whole_ranks_for_each_sample(name: str, algorithm: str) -> None:
    """Each sample's result is the one of some subset of ranks, scaled by 1 / (1 - p), and samples differ."""
    layer, x = adapted(name, algorithm, rank_dropout=CHANCE), example(LAYERS[name])
    x = x[:1].repeat(12, *(1 for _ in x.shape[1:]))
    alternatives = []
    for keep in subsets(layer):
        alternatives.append(layer.base(x[:1]) + keep(x[:1]) / (1 - CHANCE))
    torch.manual_seed(9)
    found = layer(x)
    chosen = [[i for i, other in enumerate(alternatives) if torch.allclose(row, other[0], rtol=0, atol=1e-10)] for row in found]
    assert all(len(match) == 1 for match in chosen), chosen
    assert len({match[0] for match in chosen}) > 1


def subsets(layer: Adapted) -> list:
    """For every subset of the ranks, the branch with those ranks alone."""
    adapter = layer.adapter
    if isinstance(adapter, LoKr):
        return [lambda x: 0 * branch(layer, x), lambda x: branch(layer, x)]
    each = list(changes_by_rank(layer))

    def keep(bits: int):
        delta = sum((change for i, change in enumerate(each) if bits >> i & 1), torch.zeros_like(layer.base.weight))
        return lambda x: operate(layer.base, x, delta) - operate(layer.base, x, 0 * delta)

    return [keep(bits) for bits in range(2 ** len(each))]


@torch.no_grad()
def changes_by_rank(layer: Adapted) -> Iterator[Tensor]:
    """What each rank adds to the weight, of all that are dropped on their own."""
    adapter, weight = layer.adapter, layer.base.weight
    if isinstance(adapter, GLoRA):
        for name, i in itertools.product(("a2", "b2"), range(adapter.options.rank)):
            alone = copy.deepcopy(adapter)
            alone.rescale(0)
            getattr(alone, name)[i] = getattr(adapter, name)[i]
            yield closed_delta(alone, weight)
        return
    up, down = adapter.factors()
    for i in range(len(down)):
        yield (up[:, [i]] @ down[[i]]).reshape(weight.shape)


def test_lokr_drops_the_ranks_of_its_block() -> None:
    """With two ranks in the block there are four results, each of one subset."""
    layer = nn.Linear(12, 16).double()
    lokr = LoKr(Site.of(layer), LoKr.Options(rank=2, factor=2, rank_dropout=CHANCE)).double()
    randomise(lokr)
    x = example(layer)[:1].repeat(16, 1, 1)
    found = Adapted(layer, lokr).train()(x)
    results = []
    for bits in range(4):
        mask = torch.tensor([bits & 1, bits >> 1], dtype=torch.float64)
        delta = torch.kron(lokr.small, (lokr.w2_a * mask) @ lokr.w2_b)
        results.append(layer(x[:1]) + nn.functional.linear(x[:1], delta) / (1 - CHANCE))
    hits = [[i for i, other in enumerate(results) if torch.allclose(row, other[0], rtol=0, atol=1e-10)] for row in found]
    assert all(len(match) == 1 for match in hits) and len({match[0] for match in hits}) > 2


@pytest.mark.parametrize("axis", ["input", "output"])
@pytest.mark.parametrize("algorithm", ["lora", "loha"])
def test_dropout_under_weight_decomposition_leaves_the_norms_alone(algorithm: str, axis: str) -> None:
    """``y = g (W x + D drop(x)) + b`` on the output axis; on the input axis the scaled input is dropped."""
    layer, x = adapted("wide linear", algorithm, axis, dropout=CHANCE), example(LAYERS["wide linear"])
    weight, inner = layer.base.weight, layer.adapter.inner
    delta = closed_delta(inner, weight)
    norm = (weight + delta).norm(dim=0 if axis == "input" else 1)
    gain = layer.adapter.magnitude / norm
    torch.manual_seed(4)
    found = layer(x)
    torch.manual_seed(4)
    mask = nn.functional.dropout(torch.ones_like(x), CHANCE)
    if axis == "input":
        expected = layer.base(x * gain) + nn.functional.linear(x * gain * mask, delta)
    else:
        expected = (x @ weight.T + (x * mask) @ delta.T) * gain + layer.base.bias
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.acts("adapter.module_dropout")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_module_dropout_skips_whole_layers_in_training(algorithm: str) -> None:
    name = "square linear" if algorithm in NEED_SQUARES else "wide linear"
    name = name if ALGORITHMS[algorithm].suits(Site.of(EVERY[name])) else "layer norm"
    layer, x = adapted(name, algorithm, module_dropout=CHANCE), example(EVERY[name])
    whole, base = layer.adapter(x, layer.base), layer.base(x)
    assert not torch.allclose(whole, base)
    torch.manual_seed(10)
    draws = [torch.rand(()) < CHANCE for _ in range(200)]
    assert 0.3 < sum(map(float, draws)) / 200 < 0.5
    torch.manual_seed(10)
    for skipped in draws[:40]:
        torch.testing.assert_close(layer(x), base if skipped else whole, rtol=0, atol=1e-10)
    layer.eval()
    for _ in range(20):
        torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-10)


def test_refused_where_it_means_nothing() -> None:
    linear, grouped = Site.of(LAYERS["linear"]), Site.of(LAYERS["grouped conv"])
    with pytest.raises(AdapterError, match="rank_dropout has no meaning.*full matrix"):
        LoKr(linear, LoKr.Options(full_matrix=True, rank_dropout=0.1))
    for algorithm in RANKED:
        kind = ALGORITHMS[algorithm]
        for options in ({"dropout": 0.1}, {"rank_dropout": 0.1}):
            more = {"lokr": {"factor": 2}, "hadamard": {"k": 1}}.get(algorithm, {})
            with pytest.raises(AdapterError, match="not defined for a convolution with groups"):
                kind(grouped, kind.Options(rank=1, **more, **options))


@pytest.mark.parametrize("setting", ["dropout", "rank_dropout", "module_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_chances_outside_zero_to_one_are_refused(setting: str, value: float) -> None:
    for kind in ALGORITHMS.values():
        with pytest.raises(ValueError, match=setting):
            kind.Options(**{setting: value})
