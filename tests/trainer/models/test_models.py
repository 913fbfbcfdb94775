"""Loading a base, its conditions and latents against the parts of diffusers and transformers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer import tiny
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.models import Bundle, find, load, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"), "v_prediction")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load(ModelConfig(base=str(folder)))


def test_reads_what_the_configs_say(bundle):
    assert bundle.schedule.objective == "v_prediction" and len(bundle.schedule) == 1000
    torch.testing.assert_close(bundle.schedule.alphas_cumprod, bundle.pipeline.scheduler.alphas_cumprod)
    assert bundle.source.pixel_factor == 8 and bundle.max_length == 16 and bundle.family == "sd1"
    assert set(bundle.components(unet=True, text_encoder=True)) == {"unet", "text_encoder"}
    assert set(bundle.components(unet=False, text_encoder=True)) == {"text_encoder"}


def test_nothing_of_the_base_is_trainable(bundle):
    parts = (bundle.unet, bundle.vae, *bundle.text_encoders.values())
    assert not [p for part in parts for p in part.parameters() if p.requires_grad]


def test_latents_are_scaled_posteriors_and_decode_inverts_the_scale(bundle):
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    posterior = bundle.vae.encode(pixels).latent_dist
    mean, std = bundle.encode_pixels(pixels)
    torch.testing.assert_close(mean, posterior.mean * 0.18215)
    torch.testing.assert_close(std, posterior.std * 0.18215)
    decoded = bundle.decode_latents(mean)
    expected = (bundle.vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-4)


def test_text_condition_is_the_pipelines(bundle):
    captions = ["fox", "my style, cat"]
    expected, _ = bundle.pipeline.encode_prompt(captions, "cpu", 1, False)
    torch.testing.assert_close(bundle.encode_text(captions), expected)


def test_overflow_is_what_the_encoder_cannot_see(bundle):
    assert bundle.overflow("my style, fox") == ""
    assert bundle.overflow("fox " * 14 + "cat key") == "cat key"


def test_fingerprint_follows_the_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    one, two = load(ModelConfig(base=str(folder))), load(ModelConfig(base=str(copy)))
    assert one.fingerprint("unet") == two.fingerprint("unet") != one.fingerprint("vae")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert two.fingerprint("unet") != one.fingerprint("unet")


@pytest.mark.acts("model.base")
def test_latents_of_another_scale_are_other_latents(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    config = copy / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.13025}))
    one, two = load(ModelConfig(base=str(folder))), load(ModelConfig(base=str(copy)))
    pixels = torch.zeros(1, 3, 64, 64)
    torch.testing.assert_close(two.encode_pixels(pixels)[0], one.encode_pixels(pixels)[0] / 0.18215 * 0.13025)
    assert one.fingerprint("vae") == two.fingerprint("vae")
    assert one.latents_fingerprint != two.latents_fingerprint


def test_a_file_is_hashed_once(places, monkeypatch):
    file = places["sd1", "file"]
    read = []
    monkeypatch.setattr(
        weights, "file_digest", lambda stream, name: read.append(stream.name) or hashlib.file_digest(stream, name)
    )
    weights._sha256.cache_clear()
    bundle = load(ModelConfig(base=str(file)))
    assert bundle.fingerprint("vae") != bundle.fingerprint("text_encoder")
    assert bundle.base_hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert read == [str(file)]


def test_folders_as_they_were_published_are_read(places, tmp_path):
    """Text encoders with ``text_model.`` and their positions, VAE attention under the names of diffusers' first releases."""
    copy = shutil.copytree(places["sd1", "folder"], tmp_path / "base")
    file = copy / "text_encoder" / "model.safetensors"
    names = {f"text_model.{key}": tensor for key, tensor in load_file(file).items()}
    save_file(names | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file, {"format": "pt"})
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile("attentions.0.(" + "|".join(old) + ")")
    renamed = {pattern.sub(lambda match: f"attentions.0.{old[match[1]]}", key): tensor for key, tensor in load_file(file).items()}
    save_file(renamed, file, {"format": "pt"})
    bundle, plain = load(ModelConfig(base=str(copy))), load(ModelConfig(base=str(places["sd1", "folder"])))
    for name in ("text_encoder", "vae"):
        found, expected = (getattr(each.pipeline, name).state_dict() for each in (bundle, plain))
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    by_file = load(ModelConfig(base=str(places["sd1", "folder"]), vae=str(file))).vae.state_dict()
    assert all(torch.equal(by_file[key], expected[key]) for key in expected)


def test_loading_asks_no_network(places, monkeypatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for form in ("folder", "file"):
        assert load(ModelConfig(base=str(places["sdxl", form]))).family == "sdxl"


def break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")


def other_class(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def tear_weights(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def only_pickle(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def other_sampler(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))


def tear_tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0", "tru')


def no_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_index, "not JSON"),
        (other_class, "FluxPipeline"),
        (tear_weights, "damaged"),
        (only_pickle, "pickle"),
        (no_tokenizer, "tokenizer/vocab.json"),
        (tear_tokenizer, "tokenizer.*is damaged"),
        (other_sampler, "FlowMatchEuler"),
    ],
)
def test_a_broken_folder_is_refused_with_the_reason(folder, tmp_path, damage, message):
    copy = shutil.copytree(folder, tmp_path / "base")
    damage(copy)
    with pytest.raises(InputError, match=message) as refused:
        load(ModelConfig(base=str(copy)))
    assert refused.value.fix


@pytest.mark.parametrize(
    ("name", "message"), [("none", "no such folder"), ("x.ckpt", "pickle"), ("empty", "model_index"), ("file", "damaged")]
)
def test_what_is_no_model_folder(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        find(ModelConfig(base=str(tmp_path / name)))
