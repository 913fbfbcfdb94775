"""Ranks by target, energy and norm, against singular values of the changes."""

import pytest
import torch

from morelora.files.opened import change_of, open_adapter
from morelora.files.resize import resize
from morelora.files.writing import Output
from morelora.formats.container import read_metadata
from morelora.lowrank import Cut
from tests.morelora.files.conftest import changes, close


def rank_of(values: torch.Tensor, cut: Cut) -> int:
    squares = values.double().square()
    energy = squares.cumsum(0) / squares.sum()
    wanted = cut.energy or (cut.frobenius or 0) ** 2
    return int((energy < wanted - 1e-9).sum()) + 1 if wanted else cut.rank


@pytest.mark.parametrize("cut", [Cut(3), Cut(energy=0.8), Cut(frobenius=0.8)], ids=str)
@pytest.mark.parametrize("settings", [{"rank": 6}, {"algorithm": "loha", "rank": 3}, {"algorithm": "lokr", "factor": 4}], ids=str)
def test_every_layer_becomes_the_nearest_of_its_rank(tmp_path, made, settings, cut):
    path, adapters = made("x", **settings)
    report = resize(open_adapter(path), Output(tmp_path / "y.safetensors", "webui", torch.float32), cut)
    layers = open_adapter(report.path).whole().adapters.layers
    for name, change in changes(adapters).items():
        values = torch.linalg.svdvals(change)
        rank = rank_of(values, cut)
        assert layers[name].adapter.options.rank == rank
        assert report.errors[name] == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-4)
        assert float((change_of(layers[name]) - change).norm() / change.norm()) == pytest.approx(report.errors[name], abs=1e-5)


@torch.no_grad()
def test_magnitudes_stay(tmp_path, made):
    path, adapters = made("x", rank=6, weight_decompose=True)
    report = resize(open_adapter(path), Output(tmp_path / "y.safetensors", "webui", torch.float32), Cut(2))
    again = open_adapter(report.path).whole().adapters
    assert again.layers.keys() == adapters.layers.keys()
    for name, adapter in adapters:
        other = again.layers[name].adapter
        assert close(other.magnitude, adapter.magnitude) and other.options.rank == 2
        before, after = (each.inner.delta(each.magnitude) for each in (adapter, other))
        values = torch.linalg.svdvals(before)
        assert float((after - before).norm()) == pytest.approx(float(values[2:].norm()), rel=1e-3)
    assert any("magnitudes stay" in line for line in report.lines())
    assert '"rank": 2' in read_metadata(report.path)["morelora.made"]


def test_norms_stay(tmp_path, made):
    path, adapters = made("x", rank=6, rules=[{"match": r"norm\d", "algorithm": "norm"}])
    report = resize(open_adapter(path), Output(tmp_path / "y.safetensors", "webui", torch.float32), Cut(2))
    again = open_adapter(report.path).whole().adapters
    for name, adapter in adapters:
        other = again.layers[name].adapter
        assert other.name == adapter.name
        assert other.options.rank == 2 if adapter.name == "lora" else torch.equal(other.w_norm, adapter.w_norm)
    assert any("change a norm or a bias and stay" in line for line in report.lines())
