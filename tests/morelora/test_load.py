"""Our files and other programs' files, loaded into Stable Diffusion models."""

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from lycoris import create_lycoris
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morelora import AdapterError, FormatError, UnreadTensorsWarning, load
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.precision import cast
from tests.morelora.formats import sd
from tests.morelora.formats.test_forms import SETTINGS


def saved(path: Path, adapters: Any, form: str = "webui") -> Path:
    write(path, cast(FORMS[form](adapters), torch.float32), {})
    return path


def randomise(module: nn.Module, size: float = 0.1, seed: int = 4) -> None:
    """Random trainable tensors, magnitudes moved a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "dora_scale" in name or "magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
            elif parameter.requires_grad:
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def bits(models: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor.clone() for name, model in models.items() for key, tensor in model.state_dict().items()}


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def check_same_picture(models: dict[str, nn.Module], path: Path, base: Tensor, theirs: Tensor, strength: float = 1.0) -> None:
    """Our reading of the file changes the UNet's output as the other program does."""
    load(models, path, strength)
    ours = sd.picture(models)
    assert float((theirs - base).norm() / base.norm()) > 0.01, "the file changes next to nothing: the test shows nothing"
    assert float((ours - theirs).norm() / (theirs - base).norm()) < 1e-4


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_round_trip_of_every_algorithm(tmp_path, settings):
    models, twins = sd.small(), sd.small()
    adapters = sd.trained(models, **settings)
    loaded = load(twins, saved(tmp_path / "x.safetensors", adapters))
    assert list(loaded.layers) == list(adapters.layers)
    for (_, found), layer in zip(loaded, adapters.layers.values(), strict=True):
        is_its_own = layer.adapter.file_tensors(layer.base, 1.0).keys() == layer.adapter.tensors(1.0).keys()
        assert found.name == layer.adapter.filed_as or not is_its_own
    assert sd.worst(dict(loaded.deltas()), dict(adapters.deltas())) < 2e-6
    for name, layer in loaded.layers.items():
        bias = adapters.layers[name].bias
        assert bias is None or torch.allclose(layer.bias, bias, rtol=0, atol=1e-6)


def test_round_trip_gives_the_state_back(tmp_path):
    """With one rank and one alpha the file holds the trained tensors themselves."""
    models, twins = sd.small(), sd.small()
    adapters = sd.trained(models, rank=4, alpha=2.0)
    loaded = load(twins, saved(tmp_path / "x.safetensors", adapters))
    assert same_bits(loaded.state(), adapters.state())


def test_strength_and_removal(tmp_path):
    models, twins = sd.small(), sd.small()
    before, base = bits(twins), sd.picture(twins)
    path = saved(tmp_path / "x.safetensors", sd.trained(models, rank=4, weight_decompose=True))
    full = load(twins, path)
    changes = dict(full.deltas())
    full.remove()
    pipe = SimpleNamespace(unet=twins["unet"], text_encoder=twins["text_encoder"], vae=None)
    half = load(pipe, path, strength=0.5)
    weights = {name: layer.weight for name, layer in half.layers.items()}
    for name, layer in half.layers.items():
        torch.testing.assert_close(weights[name], layer.base.weight + 0.5 * changes[name], rtol=0, atol=1e-6)
    assert not torch.equal(sd.picture(twins), base)
    half.strength = 0
    assert torch.equal(sd.picture(twins), base)
    half.remove()
    assert same_bits(bits(twins), before)


def test_two_files_at_once(tmp_path):
    twins = sd.small()
    before = bits(twins)
    one = saved(tmp_path / "one.safetensors", sd.trained(sd.small(), rank=4))
    two = saved(tmp_path / "two.safetensors", sd.trained(sd.small(), seed=2, algorithm="lokr", rank=2, factor=4))
    expected = {}
    for path in (one, two):
        alone = sd.small()
        for name, change in load(alone, path).deltas():
            expected[name] = expected.get(name, 0) + change
    first, second = load(twins, one, 0.5), load(twins, two, 0.5)
    for name, layer in second.layers.items():
        change = layer.weight - before[f"{name}.weight"]
        assert float((change - 0.5 * expected[name]).norm() / change.norm()) < 1e-5
    first.remove()
    second.remove()
    assert same_bits(bits(twins), before)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path):
    path = saved(tmp_path / "x.safetensors", sd.trained(sd.small(), rank=4))
    models = sd.small()
    torch.manual_seed(3)
    load(models, path)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


LYCORIS: dict[str, dict[str, Any]] = {
    "locon": {"algo": "locon"},
    "locon tucker": {"algo": "locon", "use_tucker": True},
    "loha": {"algo": "loha"},
    "loha tucker": {"algo": "loha", "use_tucker": True},
    "lokr": {"algo": "lokr", "factor": 4},
    "lokr near the square root": {"algo": "lokr", "factor": -1},
    "lokr both split": {"algo": "lokr", "factor": 16, "decompose_both": True, "linear_dim": 2, "conv_dim": 2},
    "lokr full matrix": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "lokr tucker": {"algo": "lokr", "factor": 4, "use_tucker": True, "linear_dim": 2, "conv_dim": 2},
    "dora, input axis": {"algo": "locon", "dora_wd": True, "wd_on_output": False},
    "dora, output axis": {"algo": "locon", "dora_wd": True, "wd_on_output": True},
    "dora over loha": {"algo": "loha", "dora_wd": True, "wd_on_output": False},
    "rslora": {"algo": "locon", "rs_lora": True},
    "glora": {"algo": "glora"},
}


@pytest.mark.parametrize("prefix", ["lycoris", "lora_unet"])
@pytest.mark.parametrize("settings", LYCORIS.values(), ids=LYCORIS.keys())
def test_files_of_lycoris(tmp_path, settings, prefix):
    models = sd.small()
    base = sd.picture(models)
    other = copy.deepcopy(models)
    options = {"linear_dim": 4, "linear_alpha": 2, "conv_dim": 4, "conv_alpha": 2} | settings
    network = create_lycoris(other["unet"], 1.0, preset="full", **options)
    network.apply_to()
    randomise(network, size=0.3 if "loha" in settings["algo"] else 0.1)
    path = tmp_path / "x.safetensors"
    save_file(
        {key.replace("lycoris_", f"{prefix}_", 1): tensor.contiguous() for key, tensor in network.state_dict().items()}, path
    )
    check_same_picture(models, path, base, sd.picture(other))


@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_q": 8}}]
)
def test_files_of_diffusers_and_peft(tmp_path, settings):
    models = sd.small()
    base = sd.picture(models)
    other = copy.deepcopy(models)
    layers = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in"]
    other["unet"].add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=layers, **settings))
    other["text_encoder"].add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "out_proj", "fc1"]))
    states = {}
    for name, model in other.items():
        randomise(model)
        states[f"{name}_lora_layers"] = get_peft_model_state_dict(model, adapter_name="default")
        states[f"{name}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(tmp_path, **states)
    check_same_picture(models, tmp_path / "pytorch_lora_weights.safetensors", base, sd.picture(other))


@pytest.mark.parametrize(
    "style", ["attention processors", "old attention processors without unet.", "lora.up", "text model level missing", "lora_te1"]
)
def test_older_key_styles(tmp_path, style):
    """The same tensors under other names make the same change."""
    models, twins = sd.small(), sd.small()
    adapters = sd.trained(models, layers="attention", rank=4)
    tensors = cast(FORMS["webui" if "te1" in style or "level" in style else "diffusers"](adapters), torch.float32)
    changes: dict[str, list[tuple[str, str]]] = {
        "attention processors": [(f".{name}.lora_{a}.", f".processor.{old}_lora.{b}.") for name, old in OLD for a, b in AB],
        "lora.up": [(f".lora_{a}.", f".lora.{b}.") for a, b in AB],
        "text model level missing": [("lora_te_text_model_", "lora_te_")],
        "lora_te1": [("lora_te_", "lora_te1_")],
    }
    changes["old attention processors without unet."] = [*changes["attention processors"], ("unet.", "")]
    renamed = {}
    for key, tensor in tensors.items():
        for new, old in changes[style]:
            key = key.replace(new, old)
        renamed[key] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "x.safetensors")
    loaded = load(twins, tmp_path / "x.safetensors")
    assert sd.worst(dict(loaded.deltas()), dict(adapters.deltas())) < 5e-7


OLD = (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out.0", "to_out"))
AB = (("A", "down"), ("B", "up"))


def test_alpha_missing_means_a_scale_of_one(tmp_path):
    models, twins = sd.small(), sd.small()
    adapters = sd.trained(models, rank=4, alpha=4.0)
    tensors = load_file(saved(tmp_path / "x.safetensors", adapters))
    save_file({key: tensor for key, tensor in tensors.items() if not key.endswith("alpha")}, tmp_path / "y.safetensors")
    loaded = load(twins, tmp_path / "y.safetensors")
    assert sd.worst(dict(loaded.deltas()), dict(adapters.deltas())) < 5e-7


KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t | {"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2)}, "lora_unet_nowhere.lora_up.weight"),
        (lambda t: t | {"bundle_emb.word.string_to_param.*": torch.ones(2)}, "the embedding 'word' is .1, 2."),
        (lambda t: t | {f"{KEY}.diff_b": torch.ones(32)}, "attn1.to_q: diff_b is not part of lora"),
        (lambda t: t | {f"{KEY}.hada_w1_a": torch.ones(32, 2)}, "attn1.to_q: .*belong to lora and loha"),
        (lambda t: t | {f"{KEY}.lora_down.weight": torch.ones(4, 40)}, "attn1.to_q: lora_down.weight has shape .4, 40."),
        (lambda t: {k: v for k, v in t.items() if k != f"{KEY}.lora_up.weight"}, "attn1.to_q: lora_up.weight is missing"),
        (
            lambda t: {k: v for k, v in t.items() if not k.startswith(KEY)} | {f"{KEY}.strange": torch.ones(2, 2, 2)},
            "no known algorithm",
        ),
        (lambda t: t | {f"{KEY}.alpha": torch.tensor(-4.0)}, "attn1.to_q: lora with alpha = -4.0 is not read here"),
        (
            lambda t: t | {f"{KEY}.lora_up.weight": torch.ones(32, 0), f"{KEY}.lora_down.weight": torch.ones(0, 32)},
            "attn1.to_q: lora with rank = 0 is not read here",
        ),
        (lambda t: t | {f"{KEY}.dora_scale": torch.ones(7, 1)}, "attn1.to_q: dora_scale has shape .7, 1."),
    ],
)
def test_what_has_no_place_is_listed(tmp_path, edit, message):
    path = tmp_path / "x.safetensors"
    save_file(edit(load_file(saved(path, sd.trained(sd.small(), rank=4)))), path)
    models = sd.small()
    before = bits(models)
    with pytest.raises(FormatError, match=message):
        load(models, path)
    assert same_bits(bits(models), before)
    with pytest.warns(UnreadTensorsWarning, match=message) as caught:
        loaded = load(models, path, strict=False)
    assert len(caught[0].message.unread) == 1
    assert len(loaded) >= 60


def test_a_clean_file_warns_of_nothing(tmp_path):
    path = saved(tmp_path / "x.safetensors", sd.trained(sd.small(), rank=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(sd.small(), path, strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_a_file_for_another_model_is_refused(tmp_path, strict):
    save_file({"lora_unet_input_blocks_44_1_proj_in.lora_up.weight": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="Nothing in it fits this model"):
        load(sd.small(), tmp_path / "x.safetensors", strict=strict)


def test_mixed_naming_styles_are_refused(tmp_path):
    tensors = load_file(saved(tmp_path / "x.safetensors", sd.trained(sd.small(), rank=4)))
    twice = tensors | {f"{KEY.replace('lora_unet', 'lycoris')}.lora_up.weight": tensors[f"{KEY}.lora_up.weight"].clone()}
    save_file(twice, tmp_path / "y.safetensors")
    with pytest.raises(FormatError, match="mixes naming styles"):
        load(sd.small(), tmp_path / "y.safetensors")


def test_damaged_peft_metadata_is_named(tmp_path):
    tensors = FORMS["diffusers"](sd.trained(sd.small(), rank=4))
    for bad in ("{", json.dumps([1]), json.dumps({"unet.lora_alpha": "x"})):
        write(tmp_path / "x.safetensors", cast(tensors, torch.float32), {"lora_adapter_metadata": bad})
        with pytest.raises(FormatError, match="lora_adapter_metadata is damaged"):
            load(sd.small(), tmp_path / "x.safetensors")


def test_no_models_is_an_error(tmp_path):
    with pytest.raises(AdapterError, match="has none of unet, text_encoder"):
        load(SimpleNamespace(), tmp_path / "x.safetensors")
