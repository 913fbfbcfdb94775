"""Files and folders that are no base model, another one, or not whole: refused with what they are and what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.models import find, load

UNET = "model.diffusion_model."
STRANGERS = {
    "LoRA, web-UI keys": (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "an adapter"),
    "LoHa": (["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"], "an adapter"),
    "LoRA, PEFT keys": (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "an adapter"),
    "ControlNet": (["control_model.input_blocks.0.0.weight", "control_model.time_embed.0.weight"], "a ControlNet"),
    "Flux": (["double_blocks.0.img_attn.qkv.weight"], "a Flux model"),
    "Flux, whole": ([f"{UNET}double_blocks.0.img_attn.qkv.weight", "vae.encoder.conv_in.weight"], "a Flux model"),
    "SD 3": ([f"{UNET}joint_blocks.0.x_block.attn.qkv.weight"], "a Stable Diffusion 3 model"),
    "refiner": ([f"{UNET}input_blocks.0.0.weight", "conditioner.embedders.0.model.ln_final.weight"], "the SDXL refiner"),
    "Playground": (
        [f"{UNET}input_blocks.0.0.weight", "conditioner.embedders.1.model.ln_final.weight", "edm_mean"],
        "an EDM model",
    ),
    "embedding": (["emb_params"], "an embedding"),
    "embedding, two encoders": (["clip_l", "clip_g"], "an embedding"),
    "UNet alone": ([f"{UNET}input_blocks.0.0.weight"], "a UNet alone"),
    "UNet in diffusers form": (["down_blocks.0.resnets.0.conv1.weight"], "a part in diffusers form"),
    "VAE alone": (["first_stage_model.decoder.conv_in.weight"], "a VAE alone"),
    "bare VAE": (["decoder.up.0.block.0.conv1.weight", "encoder.down.0.block.0.conv1.weight"], "a VAE alone"),
    "text encoder": (["text_model.embeddings.token_embedding.weight"], "a text encoder alone"),
    "language model": (["model.layers.0.mlp.up_proj.weight"], "no base model that is known"),
    "nothing": ([], "no base model that is known"),
}


def refused(base: Path, **settings: str) -> InputError:
    with pytest.raises(InputError) as error:
        load(ModelConfig(base=str(base), **settings))
    assert str(base) in error.value.what or base.name in error.value.what
    assert error.value.fix
    return error.value


def holds(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    """Whether a model's tensors are these, bit for bit."""
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(("keys", "what"), STRANGERS.values(), ids=STRANGERS.keys())
def test_a_file_that_is_no_base_says_what_it_is(tmp_path, keys, what):
    file = tmp_path / "found.safetensors"
    save_file({key: torch.zeros(2, 2) for key in keys}, file)
    assert f"is {what}" in refused(file).what


@pytest.fixture
def change(places, tmp_path) -> Callable[..., Path]:  # noqa: ANN001
    """A family's single file with tensors taken away, put in, or of other shapes."""

    def make(family: str, drop: str = "", **put: torch.Tensor) -> Path:
        tensors = load_file(places[family, "file"])
        kept = {key: tensor for key, tensor in tensors.items() if not (drop and re.search(drop, key))}
        file = tmp_path / "changed.safetensors"
        save_file(kept | {key.replace("__", "."): tensor for key, tensor in put.items()}, file)
        return file

    return make


@pytest.mark.parametrize(
    ("family", "drop", "part", "count"),
    [
        ("sd1", r"output_blocks\.11\.0\.", "unet", 12),
        ("sd1", r"input_blocks\.10\.", "unet", 10),
        ("sdxl", r"input_blocks\.7\.1\.transformer_blocks\.1\.", "unet", 20),
        ("sd2", r"first_stage_model\.", "vae", 248),
        ("sd1", r"transformer\.text_model\.final_layer_norm", "text_encoder", 2),
        ("sdxl", r"embedders\.1\.model\.transformer\.resblocks\.0\.attn\.in_proj", "text_encoder_2", 2),
    ],
)
def test_missing_tensors_are_counted_and_named(change, family, drop, part, count):
    message = refused(change(family, drop)).what
    assert f"lacks {count} of the " in message and f"tensors of the {part}: " in message
    assert re.search(drop, message)


def test_a_file_without_its_vae_loads_with_another(change, places):
    file = change("sd1", r"first_stage_model\.")
    assert "model.vae" in refused(file).fix
    bundle = load(ModelConfig(base=str(file), vae=str(places["sd2", "folder"])))
    assert holds(bundle.vae, load_file(places["sd2", "folder"] / "vae" / "diffusion_pytorch_model.safetensors"))


@pytest.mark.acts("model.vae")
@pytest.mark.parametrize("form", ["vae folder", "diffusers file", "bare original file", "checkpoint"])
def test_another_vae_in_any_form(places, tmp_path, form):
    """Each form holds SDXL's VAE; the base is SD 1's."""
    folder = places["sdxl", "folder"] / "vae"
    bare = tmp_path / "bare.safetensors"
    prefix = "first_stage_model."
    whole = load_file(places["sdxl", "file"])
    save_file({key.removeprefix(prefix): tensor for key, tensor in whole.items() if key.startswith(prefix)}, bare)
    path = {
        "vae folder": folder,
        "diffusers file": folder / "diffusion_pytorch_model.safetensors",
        "bare original file": bare,
        "checkpoint": places["sdxl", "file"],
    }[form]
    base = str(places["sd1", "file"])
    bundle, own = load(ModelConfig(base=base, vae=str(path))), load(ModelConfig(base=base))
    assert holds(bundle.vae, load_file(folder / "diffusion_pytorch_model.safetensors"))
    assert f"The VAE is {path.name}" in bundle.notes[-1] and "VAE" not in "".join(own.notes)
    assert bundle.fingerprint("vae") != own.fingerprint("vae") and bundle.fingerprint("unet") == own.fingerprint("unet")


@pytest.mark.parametrize(("name", "message"), [("gone", "no such file"), ("empty", "no config.json"), ("vae.pt", "pickle")])
def test_what_is_no_vae(places, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "vae.pt").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        find(ModelConfig(base=str(places["sd1", "file"]), vae=str(tmp_path / name)))
    with pytest.raises(InputError, match="is no VAE"):
        text = places["sd1", "folder"] / "text_encoder" / "model.safetensors"
        find(ModelConfig(base=str(places["sd1", "file"]), vae=str(text)))


def test_layers_that_the_family_does_not_have_are_refused(change):
    file = change("sd1", **{"model__diffusion_model__input_blocks__12__0__weight": torch.zeros(2, 2)})
    assert "has 1 UNet tensors that this family does not have: model.diffusion_model.input_blocks.12" in refused(file).what


def test_other_shapes_are_refused(change):
    file = change("sd1", **{"model__diffusion_model__middle_block__0__in_layers__2__weight": torch.zeros(96, 5, 3, 3)})
    assert "mid_block.resnets.0.conv1.weight with (96, 5, 3, 3) in place of (96, 96, 3, 3)" in refused(file).what


@pytest.mark.parametrize(("channels", "what"), [(9, "an inpainting model"), (8, "an instruct-pix2pix model")])
def test_another_work_than_text_to_image(change, channels, what):
    file = change("sd1", **{"model__diffusion_model__input_blocks__0__0__weight": torch.zeros(32, channels, 3, 3)})
    assert what in refused(file).what


@pytest.mark.acts("model.family")
@pytest.mark.parametrize(
    ("family", "form", "forced", "reason"),
    [
        ("sd1", "file", "sdxl", "cond_stage_model.transformer."),
        ("sd2", "file", "sd1", "cond_stage_model.model."),
        ("sdxl", "file", "sd2", "conditioner.embedders.1.model."),
        ("sdxl", "folder", "sd1", "StableDiffusionXLPipeline"),
        ("sd1", "folder", "sdxl", "convolutional projections"),
    ],
)
def test_a_wrong_family_is_refused_with_what_speaks_against_it(places, family, form, forced, reason):
    error = refused(places[family, form], family=forced)
    assert f"model.family = {forced!r} does not fit" in error.what and reason in error.what
    assert repr(family) in error.fix
    assert find(ModelConfig(base=str(places[family, form]), family=family)).family == family


def test_a_folder_of_unusual_width_may_be_named_sd1(places):
    assert find(ModelConfig(base=str(places["sd2", "folder"]), family="sd1")).family == "sd1"


def test_a_folder_of_the_published_width_may_not(places, tmp_path):
    copy = shutil.copytree(places["sd2", "folder"], tmp_path / "sd2")
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 1024}))
    assert "conditioned by 1024 channels" in refused(copy, family="sd1").what


def weights_of(folder: Path, part: str) -> Path:
    (file,) = (folder / part).glob("*.safetensors")
    return file


@pytest.mark.parametrize(("part", "key"), [("unet", "conv_in.weight"), ("text_encoder", "final_layer_norm.weight")])
def test_a_folder_that_lacks_a_tensor_is_refused(places, tmp_path, part, key):
    copy = shutil.copytree(places["sd1", "folder"], tmp_path / "base")
    file = weights_of(copy, part)
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(key)}, file, {"format": "pt"})
    message = refused(copy).what
    assert "lacks 1 of the " in message and key in message


def test_the_fp16_variant_of_a_folder_is_read(places, tmp_path):
    copy = shutil.copytree(places["sd1", "folder"], tmp_path / "base")
    for part in ("unet", "text_encoder", "vae"):
        file = weights_of(copy, part)
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    bundle = load(ModelConfig(base=str(copy)))
    assert holds(bundle.unet, load_file(weights_of(places["sd1", "folder"], "unet")))


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_pickle_under_another_name_is_not_opened(tmp_path, start):
    file = tmp_path / "model.safetensors"
    file.write_bytes(start + bytes(100))
    assert "pickle under another name" in refused(file).what


def test_a_torn_file_is_refused(places, tmp_path):
    file = tmp_path / "torn.safetensors"
    file.write_bytes(places["sd1", "file"].read_bytes()[:-1000])
    assert "damaged" in refused(file).what


def test_old_spellings_are_read(change, places):
    """Merges from before transformers 4.31 lack ``text_model.``; some tools write ``vae.`` for the VAE."""
    tensors = load_file(places["sd1", "file"])
    renamed = {key.replace(".text_model.", ".").replace("first_stage_model.", "vae."): tensor for key, tensor in tensors.items()}
    file = change("sd1", drop=r"text_model|first_stage_model")
    save_file(renamed, file)
    bundle, plain = load(ModelConfig(base=str(file))), load(ModelConfig(base=str(places["sd1", "file"])))
    for name in plain.source.parts:
        assert holds(getattr(bundle.pipeline, name), getattr(plain.pipeline, name).state_dict())


@pytest.mark.acts("model.dtype")
def test_the_vae_stays_in_fp32_whatever_the_base_is_held_in(places):
    """Rounding to half precision on the way would show in its weights."""
    for form in ("folder", "file"):
        bundle = load(ModelConfig(base=str(places["sdxl", form]), dtype="fp16"))
        assert bundle.unet.dtype == bundle.pipeline.text_encoder_2.dtype == torch.float16
        assert holds(bundle.vae, load_file(places["sdxl", "folder"] / "vae" / "diffusion_pytorch_model.safetensors"))
