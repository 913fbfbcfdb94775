"""What is told of a file, against what was put into it."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from morelora.files.checkpoint import Checkpoint
from morelora.files.inspect import inspect, lines
from tests.morelora.files.conftest import changes

RULES = [{"match": "attn2", "algorithm": "loha", "rank": 2}, {"match": r"norm\d", "algorithm": "norm"}]


def test_the_figures_are_those_of_the_adapter(made):
    path, adapters = made("x", rank=4, alpha=2.0, rules=RULES)
    told = inspect(path)
    assert told["family"] == "sd1" and told["algorithms"] == {"lora": 16, "loha": 16, "norm": 28}
    assert told["ranks"] == {"2": 16, "4": 16} and told["alphas"] == {"2": 32}
    assert told["precision"] == {"float32": sum(told["precision"].values())}
    assert told["dead"] == told["not_finite"] == told["unread"] == []
    by_name = {layer["name"]: layer for layer in told["layers"]}
    for name, change in changes(adapters).items():
        layer = by_name[name]
        if layer["algorithm"] == "norm":
            norm = math.hypot(float(change.norm()), float(adapters.layers[name].adapter.b_norm.norm()))
            assert layer["norm"] == pytest.approx(norm, rel=1e-5)
            continue
        values = torch.linalg.svdvals(change)
        assert layer["norm"] == pytest.approx(float(change.norm()), rel=1e-5)
        assert layer["numerical_rank"] == 4 and layer["shape"] == list(change.shape)
        assert layer["singular_values"][:4] == pytest.approx(values[:4].tolist(), rel=1e-4)
        p = values.double().square() / values.double().square().sum()
        assert layer["effective_rank"] == pytest.approx(math.exp(float(torch.special.entr(p).sum())), rel=1e-4)
    for block in told["blocks"]:
        norms = [layer["norm"] for layer in told["layers"] if layer["block"] == block]
        assert told["blocks"][block] == {"layers": len(norms), "norm": pytest.approx(math.hypot(*norms))}
    assert list(told["blocks"])[0] == "IN01"


def test_faults_are_named(tmp_path, made):
    path, _ = made("x", rank=4)
    tensors = load_file(path)
    down = [key for key in tensors if key.endswith("lora_down.weight")]
    tensors[down[0]][0, 0] = torch.nan
    tensors[down[1]].zero_()
    tensors["lora_unet_nowhere.lora_up.weight"] = torch.ones(2, 2)
    save_file(tensors, path)
    told = inspect(path)
    assert told["not_finite"] == [down[0]] and told["unread"] == ["lora_unet_nowhere.lora_up.weight"]
    assert len(told["dead"]) == 1 and told["dead"][0].replace(".", "_") in down[1]
    text = "\n".join(lines(told, all_layers=True))
    assert f"not finite  {down[0]}" in text and "(no change at all)" in text and "not read    lora_unet_nowhere" in text
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_readers_are_those_of_the_tensors(made):
    readers = inspect(made("x", rank=4, weight_decompose=True)[0])["read_by"]
    assert readers == ["a1111", "forge", "comfyui", "invokeai", "morelora"]
    assert "diffusers" in inspect(made("y", "diffusers", rank=4)[0])["read_by"]


def test_the_recipe_and_the_words_are_told(tmp_path, made):
    path, _ = made("x", rank=4)
    recipe = {"step": 7, "pictures": {"a.png": "0"}, "base": {"name": "some-base"}, "config": {"adapter": {"rank": 4}}}
    tensors = load_file(path) | {"bundle_emb.mine.string_to_param.*": torch.ones(1, 8)}
    save_file(tensors, path, {"morelora": json.dumps(recipe), "note": "n" * 300})
    told = inspect(path)
    assert told["recipe"] == recipe and told["words"] == ["mine"] and told["base"] == "some-base"
    text = "\n".join(lines(told))
    assert "step 7, 1 pictures" in text and "adapter.rank = 4" in text and "n" * 300 not in text


def test_a_base_gives_shares_and_what_depends_on_it(tmp_path, bases):
    from morelora.formats import FORMS
    from morelora.formats.container import write
    from morelora.formats.precision import cast
    from tests.morelora.formats import sd
    from tests.trainer import miniatures

    adapters = sd.trained({"unet": miniatures.parts("sd1")["unet"]}, layers="attention", algorithm="oft", block_size=4)
    path = tmp_path / "x.safetensors"
    write(path, cast(FORMS["webui"](adapters), torch.float32), {})
    expected = {name: (change, adapters.layers[name].base.weight) for name, change in changes(adapters).items()}
    adapters.remove()
    assert inspect(path)["layers"] == []
    for layer in inspect(path, Checkpoint.open(bases("sd1", "file")))["layers"]:
        change, weight = expected[layer["name"]]
        assert layer["norm"] == pytest.approx(float(change.norm()), rel=1e-4)
        assert layer["share"] == pytest.approx(float(change.norm() / weight.norm()), rel=1e-4)
