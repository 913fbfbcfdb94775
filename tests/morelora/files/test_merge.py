"""Sums of files against sums of their changes, and base models against weights written out."""

import pytest
import torch
from safetensors.torch import load_file

import morelora
from morelora import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.merge import merge, merge_into
from morelora.files.opened import change_of, open_adapter, shift_of
from morelora.files.writing import Output
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.names import dotted
from morelora.formats.precision import cast
from morelora.lowrank import Cut
from tests.morelora.files.conftest import changes, close
from tests.morelora.formats import sd
from tests.trainer import miniatures

FULL = torch.float32


def out(folder) -> Output:
    return Output(folder / "out.safetensors", "webui", FULL)


@pytest.mark.parametrize("cut", [None, Cut(3)])
def test_mixed_algorithms_are_stacked(tmp_path, made, cut):
    one, first = made("one", rank=4, alpha=2.0)
    two, second = made("two", algorithm="loha", rank=2)
    three, third = made("three", algorithm="lokr", rank=1, factor=4, rules=[{"match": "attn1", "algorithm": "none"}])
    files = [(open_adapter(one), 0.8), (open_adapter(two), -0.5), (open_adapter(three), 1.0)]
    report = merge(files, out(tmp_path), cut)
    a, b, c = changes(first), changes(second), changes(third)
    found = {name: change_of(layer) for name, layer in open_adapter(report.path).adapters.layers.items()}
    for name in a:
        expected = 0.8 * a[name] - 0.5 * b[name] + c.get(name, 0 * a[name])
        left = torch.linalg.svdvals(expected)[3:]
        nearest = 0.0 if cut is None else float(left.norm() / expected.norm())
        assert float((found[name] - expected).norm() / expected.norm()) == pytest.approx(nearest, abs=1e-5)
        assert report.errors[name] == pytest.approx(nearest, abs=1e-5)
    assert report.ranks == ({3: 32} if cut else {8: 16, 12: 16})
    alphas = {float(tensor) for key, tensor in load_file(report.path).items() if key.endswith("alpha")}
    assert len(alphas) == 1


def test_what_has_no_thin_factors_is_added_up_dense_biases_too(tmp_path, made):
    one, first = made("one", rank=4)
    two, second = made("two", algorithm="full")
    report = merge([(open_adapter(one), 1.0), (open_adapter(two), 0.5)], out(tmp_path))
    merged = open_adapter(report.path).adapters.layers
    for name, layer in merged.items():
        expected = changes(first)[name] + 0.5 * changes(second)[name]
        assert close(change_of(layer), expected)
        bias = second.layers[name].adapter.diff_b
        assert (shift_of(layer) is None) == (bias is None)
        assert bias is None or close(shift_of(layer), 0.5 * bias)
    assert any("32 of 32 layers are dense" in line for line in report.lines())


def test_norms_and_biases_are_added_up(tmp_path, made):
    one, first = made("one", algorithm="norm")
    report = merge([(open_adapter(one), 2.0), (open_adapter(one), 1.0)], out(tmp_path))
    for name, layer in open_adapter(report.path).adapters.layers.items():
        assert close(change_of(layer), 3 * first.layers[name].adapter.w_norm)
        assert close(shift_of(layer), 3 * first.layers[name].adapter.b_norm)


def test_files_for_other_models_and_serial_adapters_are_refused(tmp_path, made):
    one, _ = made("one")
    other = sd.trained({"unet": sd.sd15()["unet"]}, layers="attention", rank=2)
    write(tmp_path / "two.safetensors", cast(FORMS["webui"](other), FULL), {})
    with pytest.raises(FormatError, match="has shapes .* the files are for different models"):
        merge([(open_adapter(one), 1.0), (open_adapter(tmp_path / "two.safetensors"), 1.0)], out(tmp_path))


@pytest.mark.parametrize(("family", "kind"), [("sd1", "file"), ("sd2", "folder"), ("sdxl", "file")])
def test_a_base_with_adapters_in_it_has_the_weights_of_loading_them(tmp_path, bases, family, kind):
    """Two files one after the other, the second of which depends on the weight that the first one left."""
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    settings: list[dict] = [{"rank": 2}, {"algorithm": "loha", "rank": 1, "weight_decompose": True}]
    names = [name for name in miniatures.parts(family) if name != "vae"]
    for path, setting in zip(paths, settings, strict=True):
        models = {name: miniatures.parts(family)[name] for name in names}
        adapters = sd.trained(models, layers="attention", **setting)
        write(path, cast(FORMS["webui"](adapters), FULL), {})
        adapters.remove()
    base = Checkpoint.open(bases(family, kind))
    result = tmp_path / ("model" if kind == "folder" else "model.safetensors")
    lines = merge_into(base, [(open_adapter(paths[0], base), 0.7), (open_adapter(paths[1], base), 1.0)], result)
    assert "Relative error of the change" in lines[1]
    loaded = [morelora.load(models, path, strength) for path, strength in zip(paths, (0.7, 1.0), strict=True)]
    merged = Checkpoint.open(result)
    outer = loaded[1].layers
    assert len(outer) > 20
    for name, layer in outer.items():
        assert close(merged.weight(dotted(name)), layer.weight.detach(), 1e-6), name
    for adapters in reversed(loaded):
        adapters.remove()
    untouched = "unet.mid_block.resnets.0.conv1"
    assert torch.equal(merged.weight(untouched), base.weight(untouched))
