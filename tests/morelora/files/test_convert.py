"""Files in another form: the change stays, the error that is told is the true one, and the text goes along."""

import json

import pytest
import torch
from safetensors.torch import load_file

from morelora import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.convert import convert
from morelora.files.opened import change_of, open_adapter
from morelora.files.writing import Output
from morelora.formats import FORMS
from morelora.formats.container import read_metadata, write
from morelora.formats.precision import cast
from morelora.lowrank import Cut
from tests.morelora.files.conftest import changes, close
from tests.morelora.formats import sd
from tests.trainer import miniatures

FULL = torch.float32


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        ({"rank": 4}, "webui", "diffusers"),
        ({"rank": 4}, "diffusers", "webui"),
        ({"rank": 4, "layers": "all", "tucker": True}, "webui", "lora"),
        ({"algorithm": "loha", "rank": 2}, "webui", "lora"),
        ({"algorithm": "loha", "rank": 2, "layers": "all"}, "webui", "diffusers"),
        ({"algorithm": "lokr", "rank": 1, "factor": 4}, "webui", "lora"),
        ({"algorithm": "lokr", "factor": 4, "full_matrix": True}, "webui", "diff"),
        ({"algorithm": "full"}, "diff", "webui"),
    ],
)
def test_the_change_stays_and_is_measured(tmp_path, made, settings, first, second):
    path, adapters = made("x", first, **settings)
    out = tmp_path / "y.safetensors"
    report = convert(open_adapter(path), Output(out, second, FULL))
    expected = changes(adapters)
    again = open_adapter(out).whole()
    assert again.adapters.layers.keys() == expected.keys() == report.errors.keys()
    assert all(close(change_of(layer), expected[name]) for name, layer in again.adapters.layers.items())
    assert report.error < 1e-6 and report.form == second
    half = convert(open_adapter(path), Output(tmp_path / "z.safetensors", second, torch.float16))
    direct = max(
        float((change_of(layer) - expected[name]).norm() / expected[name].norm())
        for name, layer in open_adapter(half.path).adapters.layers.items()
    )
    assert 1e-5 < half.error < 1e-3 and half.error == pytest.approx(direct, rel=1e-2)


def test_plain_loras_made_of_others_have_one_alpha(tmp_path, made):
    rules = [{"match": "attn2", "algorithm": "lokr", "rank": 1, "factor": 2}]
    path, _ = made("x", algorithm="loha", rank=2, rules=rules)
    convert(open_adapter(path), Output(tmp_path / "y.safetensors", "lora", FULL))
    tensors = load_file(tmp_path / "y.safetensors")
    assert len({float(tensor) for key, tensor in tensors.items() if key.endswith("alpha")}) == 1
    assert len({len(tensor) for key, tensor in tensors.items() if "lora_down" in key}) > 1


def test_auto_and_svd_tell_what_they_did(tmp_path, made):
    path, adapters = made("x", algorithm="lokr", factor=4, full_matrix=True)
    output = Output(tmp_path / "y.safetensors", "auto", FULL, ("diffusers",), Cut(3))
    report = convert(open_adapter(path), output)
    assert report.form == "svd" and any("no form is read exactly by all of diffusers" in line for line in report.lines())
    found = {name: change_of(layer) for name, layer in open_adapter(report.path).adapters.layers.items()}
    direct = max(float((found[name] - change).norm() / change.norm()) for name, change in changes(adapters).items())
    assert report.error == pytest.approx(direct, rel=1e-3) and direct > 0.1
    told = json.loads(read_metadata(report.path)["morelora.export"])
    assert told["largest_error"] == pytest.approx(direct, rel=1e-3)


def test_what_depends_on_weights_asks_for_the_base(tmp_path, made, bases):
    path, _ = made("x", rank=4, weight_decompose=True)
    for form in ("diff", "svd"):
        with pytest.raises(FormatError, match="depends on the base's weights: give the base model with --base"):
            convert(open_adapter(path), Output(tmp_path / "y.safetensors", form, FULL))
    same = convert(open_adapter(path), Output(tmp_path / "y.safetensors", "webui", FULL))
    assert same.unmeasured and not same.errors and any("--base" in line for line in same.lines())
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["x.safetensors", "y.safetensors"]


def test_a_base_of_another_family_is_refused(tmp_path, made, bases):
    path, _ = made("x")
    base = Checkpoint.open(bases("sdxl", "file"))
    with pytest.raises(FormatError):
        convert(open_adapter(path, base), Output(tmp_path / "y.safetensors"), base)


def test_text_entries_go_along_and_what_told_of_the_tensors_does_not(tmp_path, made):
    path, _ = made("x", algorithm="loha", rank=2)
    convert(open_adapter(path), Output(tmp_path / "y.safetensors", "lora", FULL))
    found = read_metadata(tmp_path / "y.safetensors")
    assert found["ss_base_model_version"] == "sd_v1" and found["ss_network_module"] == "networks.lora"
    assert found["ss_network_dim"] == "4" == found["ss_network_alpha"]
    assert json.loads(found["morelora.made"]) == {"command": "convert", "from": ["x.safetensors"], "form": "lora"}
    assert found["sshs_model_hash"] != read_metadata(path)["sshs_model_hash"]


def test_a_change_that_depends_on_the_base_is_refused_without_it_and_becomes_a_lora_with_it(tmp_path, bases):
    out, base = Output(tmp_path / "y.safetensors", "lora", FULL), Checkpoint.open(bases("sd1", "file"))
    models = {name: model for name, model in miniatures.parts("sd1").items() if name != "vae"}
    adapters = sd.trained(models, algorithm="glora", rank=2, layers="attention")
    write(tmp_path / "x.safetensors", cast(FORMS["sidecar"](adapters), FULL), {})
    expected = changes(adapters)
    adapters.remove()
    with pytest.raises(FormatError, match="depends on the base's weights: give the base model with --base"):
        convert(open_adapter(tmp_path / "x.safetensors"), out)
    report = convert(open_adapter(tmp_path / "x.safetensors", base), out, base)
    assert report.error < 1e-6 and set(report.ranks) == {4} and report.errors.keys() == expected.keys()
    assert all(close(change_of(layer), expected[name]) for name, layer in open_adapter(out.path).adapters.layers.items())
