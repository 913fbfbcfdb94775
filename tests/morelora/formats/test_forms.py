"""What the three forms hold, against closed forms of the web UIs written out in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from morelora import FormatError
from morelora.formats import FORMS
from morelora.formats.names import kohya
from tests.morelora.formats import sd

NOT_SQUARE = r"attn2\.to_[kv]$|ff\.net|mlp|resnets|samplers"

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "alpha": 2.0},
    "locon with another rank on kernels": {"rank": 4, "alpha": 2.0, "conv_rank": 3, "conv_alpha": 1.0},
    "rslora": {"rank": 4, "alpha": 2.0, "rs": True},
    "lora tucker": {"rank": 4, "alpha": 2.0, "tucker": True},
    "loha": {"algorithm": "loha", "rank": 3, "alpha": 1.5},
    "loha tucker": {"algorithm": "loha", "rank": 3, "alpha": 1.5, "tucker": True},
    "lokr": {"algorithm": "lokr", "rank": 2, "alpha": 1.0, "factor": 4},
    "lokr both split": {"algorithm": "lokr", "rank": 1, "alpha": 0.5, "factor": 8, "decompose_both": True},
    "lokr full matrix": {"algorithm": "lokr", "factor": 4, "full_matrix": True},
    "krona": {"algorithm": "krona", "factor": 4, "scale": 0.7},
    "krona_res": {"algorithm": "krona_res", "factor": 4, "rules": [{"match": NOT_SQUARE, "algorithm": "krona", "factor": 4}]},
    "dora": {"rank": 4, "alpha": 2.0, "weight_decompose": True},
    "dora over loha": {"algorithm": "loha", "rank": 3, "alpha": 1.5, "weight_decompose": True},
    "dora over lokr": {"algorithm": "lokr", "rank": 2, "alpha": 1.0, "factor": 4, "weight_decompose": True},
    "hadamard": {"algorithm": "hadamard", "rank": 6, "k": 3, "alpha": 2.0},
    "hadamard tanh": {"algorithm": "hadamard", "rank": 4, "k": 2, "nonlinear": "tanh", "alpha": 8.0},
    "dora over hadamard": {"algorithm": "hadamard", "rank": 4, "k": 2, "alpha": 2.0, "weight_decompose": True},
    "dora over hadamard tanh": {
        "algorithm": "hadamard",
        "rank": 4,
        "k": 2,
        "alpha": 40.0,
        "nonlinear": "tanh",
        "weight_decompose": True,
    },
    "additive": {"algorithm": "additive", "rank": 3, "alpha": 1.5},
    "glora": {"algorithm": "glora", "rank": 2, "alpha": 1.0},
    "dora over glora": {"algorithm": "glora", "rank": 2, "alpha": 1.0, "weight_decompose": True},
    "ssf": {"algorithm": "ssf"},
    "norm": {"algorithm": "norm"},
    "ia3": {"algorithm": "ia3"},
    "ia3 on the output": {"algorithm": "ia3", "on_input": False},
    "oft": {"algorithm": "oft", "block_size": 4, "constraint": 0.03},
    "oft with a scale": {"algorithm": "oft", "block_size": 4, "rescale": True},
    "dora over oft": {"algorithm": "oft", "block_size": 4, "weight_decompose": True},
    "pissa": {"rank": 3, "alpha": 1.5, "start": "pissa"},
    "residual lokr full matrix": {"algorithm": "lokr", "factor": 4, "full_matrix": True, "start": "residual"},
    "adalora": {"algorithm": "adalora", "rank": 4, "alpha": 2.0},
    "sora": {"algorithm": "sora", "rank": 4, "alpha": 2.0},
    "dylora": {"algorithm": "dylora", "rank": 4, "alpha": 2.0},
    "tlora": {"algorithm": "tlora", "rank": 4, "alpha": 2.0},
    "vera": {"algorithm": "vera", "rank": 4},
    "tied": {"algorithm": "tied", "rank": 4},
    "dora over vera": {"algorithm": "vera", "rank": 4, "weight_decompose": True},
    "dora over sora": {"algorithm": "sora", "rank": 4, "alpha": 2.0, "weight_decompose": True},
    "boft": {"algorithm": "boft", "block_size": 4, "rescale": True},
}


def rebuilt(leaves: dict[str, Tensor], shape: torch.Size) -> Tensor:
    """The additive change that A1111, Forge, ComfyUI and InvokeAI make of a module's tensors."""
    t = {leaf: tensor.double() for leaf, tensor in leaves.items()}
    if "lora_mid.weight" in t:
        up, down = t["lora_up.weight"][:, :, 0, 0], t["lora_down.weight"][:, :, 0, 0]
        return torch.einsum("or,rskl,si->oikl", up, t["lora_mid.weight"], down) * t["alpha"] / len(down)
    if "lora_up.weight" in t:
        up, down = t["lora_up.weight"].flatten(1), t["lora_down.weight"].flatten(1)
        return (up @ down).view(shape) * t["alpha"] / len(down)
    if "hada_t1" in t:
        one, two = (torch.einsum("ro,rskl,si->oikl", t[f"hada_w{n}_a"], t[f"hada_t{n}"], t[f"hada_w{n}_b"]) for n in (1, 2))
        return one * two * t["alpha"] / len(t["hada_w1_b"])
    if "hada_w1_a" in t:
        whole = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
        return whole.view(shape) * t["alpha"] / len(t["hada_w1_b"])
    small = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    block = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    ranks = [len(t[leaf]) for leaf in ("lokr_w2_b", "lokr_w1_b") if leaf in t]
    return torch.kron(small, block.flatten(1)).view(shape) * (t["alpha"] / ranks[0] if ranks else 1)


def rotated(weight: Tensor, leaves: dict[str, Tensor]) -> Tensor:
    """``W'`` that A1111 and ComfyUI make of blocks; alpha is the largest norm of the angles, in ComfyUI by itself."""
    blocks = leaves["oft_blocks"].double()
    skew = blocks - blocks.transpose(-1, -2)
    assert skew.norm() < leaves["alpha"]
    one = torch.eye(skew.shape[-1], dtype=skew.dtype)
    turns = (one + skew) @ torch.linalg.inv(one - skew)
    if blocks.dim() == 3:
        return torch.einsum("knm,kn...->km...", turns, weight.unflatten(0, turns.shape[:2])).flatten(0, 1)
    for stage, turn in enumerate(turns):
        stride, size = 2**stage * turn.shape[-1] // 2, turn.shape[-1]
        weight = weight.unflatten(0, (-1, 2, stride)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
        weight = torch.einsum("bij,bj...->bi...", turn, weight).flatten(0, 1)
        weight = weight.unflatten(0, (-1, stride, 2)).transpose(1, 2).flatten(0, 2)
    return weight * leaves.get("rescale", torch.ones(())).double()


def client_weight(weight: Tensor, leaves: dict[str, Tensor], strength: float) -> Tensor:
    """``W'`` of a web UI: the scaled change, then the magnitudes by input channel, then the strength."""
    weight = weight.double()
    dense = leaves.get("diff", leaves.get("w_norm"))
    if dense is not None:
        return weight + strength * dense.double()
    changed = rotated(weight, leaves) if "oft_blocks" in leaves else weight + rebuilt(leaves, weight.shape)
    if "dora_scale" in leaves:
        axes = [axis for axis in range(weight.dim()) if axis != 1]
        changed = changed * leaves["dora_scale"].double() / changed.square().sum(axes, keepdim=True).sqrt()
    return weight + strength * (changed - weight)


def by_module(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, leaf = key.partition(".")
        modules.setdefault(name, {})[leaf] = tensor
    return modules


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@torch.no_grad()
def test_webui_form_gives_clients_our_weight(settings):
    models = sd.small()
    adapters = sd.trained(models, **settings)
    modules = by_module(FORMS["webui"](adapters))
    assert len(modules) == len(adapters)
    for name, layer in adapters.layers.items():
        adapter, base = copy.deepcopy(layer.adapter).double(), layer.base.weight.double()
        ours = base + 0.7 * adapter.delta(base)
        theirs = client_weight(base, modules[kohya(name)], 0.7)
        assert float((ours - theirs).norm() / (ours - base).norm()) < 2e-6, name


@pytest.mark.parametrize("form", ["lora", "diffusers"])
@pytest.mark.parametrize(
    "case",
    [
        "lora",
        "locon with another rank on kernels",
        "rslora",
        "lora tucker",
        "loha",
        "loha tucker",
        "lokr",
        "lokr both split",
        "hadamard",
        "additive",
        "glora",
        "vera",
        "tied",
    ],
)
@torch.no_grad()
def test_low_rank_forms_are_exact(form, case):
    models = sd.small()
    adapters = sd.trained(models, **SETTINGS[case])
    tensors = FORMS[form](adapters)
    for name, change in adapters.deltas():
        if form == "lora":
            key, up, down = kohya(name), "lora_up", "lora_down"
            scale = float(tensors[f"{key}.alpha"]) / len(tensors[f"{key}.{down}.weight"])
        else:
            key, up, down, scale = name.replace("text_encoder.enc", "text_encoder.text_model.enc"), "lora_B", "lora_A", 1.0
        product = tensors[f"{key}.{up}.weight"].flatten(1).double() @ tensors[f"{key}.{down}.weight"].flatten(1).double()
        error = (scale * product - change.flatten(1)).norm() / change.norm()
        assert float(error) < 5e-7, name


def test_ranks_of_the_plain_form():
    tensors = FORMS["lora"](sd.trained(sd.small(), algorithm="loha", rank=3))
    assert {len(tensor) for key, tensor in tensors.items() if "lora_down" in key} == {9}
    models = sd.small()
    adapters = sd.trained(models, algorithm="lokr", rank=2, factor=4)
    tensors = FORMS["lora"](adapters)
    for name, adapter in adapters:
        assert len(tensors[f"{kohya(name)}.lora_down.weight"]) == min(adapter.p, adapter.q) * 2


@pytest.mark.parametrize("form", ["webui", "lora"])
def test_one_alpha_in_the_whole_file(form):
    """Ranks and alphas differ by rule and by kernel, and yet all alphas of the file are one number, without an axis."""
    rules = [{"match": "attn2", "rank": 6, "alpha": 1.0}, {"match": "text_encoder", "rank": 2, "alpha": 8.0}]
    tensors = FORMS[form](sd.trained(sd.small(), rank=4, alpha=2.0, conv_rank=3, rules=rules))
    alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
    assert {tuple(alpha.shape) for alpha in alphas} == {()}
    assert len({float(alpha) for alpha in alphas}) == 1
    ranks = {len(tensor) for key, tensor in tensors.items() if "lora_down" in key}
    assert ranks == {2, 3, 4, 6}


@pytest.mark.parametrize("settings", [SETTINGS["loha"], SETTINGS["lokr"]])
def test_loha_and_lokr_have_a_scale_of_one(settings):
    """LyCORIS' merge applies the scale twice: at 1 that does no harm."""
    modules = by_module(FORMS["webui"](sd.trained(sd.small(), **settings)))
    assert {float(leaves["alpha"]) for leaves in modules.values()} == {float(settings["rank"])}


def test_shapes_follow_the_layer():
    tensors = FORMS["webui"](sd.trained(sd.small(), rank=4))
    shapes = {key.removeprefix("lora_unet_"): tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes["down_blocks_0_resnets_0_conv1.lora_down.weight"] == (4, 32, 3, 3)
    assert shapes["down_blocks_0_resnets_0_conv1.lora_up.weight"] == (32, 4, 1, 1)
    assert shapes["down_blocks_0_attentions_0_proj_in.lora_up.weight"] == (32, 4, 1, 1)
    assert shapes["down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"] == (4, 40)


def test_dora_shapes_name_their_axis():
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.dora_scale"
    assert FORMS["webui"](sd.trained(sd.small(), weight_decompose=True))[key].shape == (1, 40)
    output = sd.trained(sd.small(), weight_decompose=True, decompose_axis="output")
    assert FORMS["webui"](output)[key].shape == (32, 1)
    unet = {"unet": sd.small()["unet"]}
    tensors = FORMS["diffusers"](sd.trained(unet, weight_decompose=True, decompose_axis="output"))
    assert tensors["unet.down_blocks.0.resnets.0.conv1.lora_magnitude_vector"].shape == (1, 32, 1, 1)
    assert tensors["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_magnitude_vector"].shape == (32,)


@pytest.mark.parametrize(
    ("form", "settings", "message"),
    [
        ("lora", {"weight_decompose": True}, "DoRA.*not low-rank.*write the 'webui' form"),
        ("lora", {"algorithm": "lokr", "full_matrix": True}, "unet.down_blocks.0.*full-matrix LoKr.*write the 'webui' form"),
        ("diffusers", {"algorithm": "lokr", "full_matrix": True}, "full-matrix LoKr"),
        ("lora", {"algorithm": "krona"}, "product of whole matrices.*'lokr'"),
        ("diffusers", {"weight_decompose": True}, "output axis only"),
        ("diffusers", {"weight_decompose": True, "decompose_axis": "output"}, "text_encoder.*drops.*text_encoder = false"),
    ],
)
def test_what_a_form_cannot_hold_is_refused_with_the_way_out(form, settings, message):
    with pytest.raises(FormatError, match=message):
        FORMS[form](sd.trained(sd.small(), **settings))
