"""Base models by their headers, and copies of them with other weights, against diffusers' own loading."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from morelora import FormatError
from morelora.files.checkpoint import Checkpoint
from tests.trainer import miniatures


@pytest.mark.parametrize("family", miniatures.FAMILIES)
def test_folder_and_file_hold_the_same_layers(bases, family):
    folder, file = (Checkpoint.open(bases(family, kind)) for kind in ("folder", "file"))
    assert folder.family == file.family == family
    unused = {name for name in file.layers if "encoder.layers.3." in name and family == "sd2"}
    assert {name: site for name, site in file.layers.items() if name not in unused} == folder.layers
    for key in folder.entries:
        assert torch.equal(folder.read(key), file.read(key)), key
    for component in ("unet", "text_encoder"):
        own = {name for name, _ in miniatures.parts(family)[component].named_parameters()}
        found = {key.removeprefix(f"{component}.") for key in folder.entries if key.startswith(f"{component}.")}
        assert {name.removeprefix("text_model.") for name in own} == {name.removeprefix("text_model.") for name in found}


@pytest.mark.parametrize(("family", "kind"), [("sd1", "folder"), ("sd2", "file"), ("sdxl", "file")])
def test_a_copy_differs_where_it_was_changed_and_nowhere_else(tmp_path, bases, family, kind):
    """SD 2's queries are a third of a matrix; SDXL's second projection is transposed."""
    base = Checkpoint.open(bases(family, kind))
    names = ["unet.mid_block.resnets.0.conv1", "text_encoder.text_model.encoder.layers.1.self_attn.k_proj"]
    names += ["text_encoder_2.text_projection"] if family == "sdxl" else ["unet.up_blocks.0.upsamplers.0.conv"]
    out = tmp_path / "out" if kind == "folder" else tmp_path / "out.safetensors"

    def change(name, weight, bias):
        grown = torch.arange(weight.numel()).view(weight.shape) / weight.numel()
        return weight + grown, None if bias is None else bias - 1

    assert base.write(out, change, names, {"morelora.merged": "x=1"}) < 1e-6
    copy = Checkpoint.open(out)
    for key in base.entries:
        name, _, leaf = key.rpartition(".")
        expected = base.read(key)
        if name in names:
            expected = change(name, expected, expected)[0 if leaf == "weight" else 1]
        assert torch.equal(copy.read(key), expected), key
    with safe_open(next(iter(copy.headers)), "pt") as file:
        assert file.metadata()["morelora.merged"] == "x=1"
    before, after = (sorted(p.relative_to(root) for p in root.rglob("*")) for root in (base.path, out))
    assert before == after and not list(tmp_path.glob(".tmp*"))


def test_half_precision_tells_what_it_costs_and_refuses_what_it_cannot_hold(tmp_path, bases):
    half = tmp_path / "half.safetensors"
    tensors = {key: tensor.half() for key, tensor in load_file(bases("sd1", "file")).items()}
    save_file(tensors, half, {"sshs_model_hash": "old", "kept": "yes"})
    base = Checkpoint.open(half)
    names = ["unet.mid_block.resnets.0.conv1"]
    lost = base.write(tmp_path / "a.safetensors", lambda name, w, b: (w + 1e-3, b), names, {})
    assert 1e-3 < lost < 0.2
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"kept": "yes"}
    with pytest.raises(FormatError, match="too large for F16"):
        base.write(tmp_path / "b.safetensors", lambda name, w, b: (w * 1e6, b), names, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "half.safetensors"]


def test_what_is_no_base_is_refused(tmp_path):
    save_file({"lora_unet_x.alpha": torch.ones(())}, tmp_path / "lora.safetensors")
    with pytest.raises(FormatError, match="no whole SD 1.x, 2.x or XL checkpoint.*lora_unet_x.alpha"):
        Checkpoint.open(tmp_path / "lora.safetensors")
    with pytest.raises(FormatError, match="no unet/"):
        Checkpoint.open(tmp_path)
