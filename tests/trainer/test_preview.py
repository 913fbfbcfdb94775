"""Previews: fixed by prompt and seed, equal to the pipeline's own pictures, and without a trace in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer import tiny
from trainer import preview
from trainer.config import ModelConfig, PreviewConfig
from trainer.models import Bundle, load

CONFIG = PreviewConfig(steps=2, guidance=2.0, seed=7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(ModelConfig(base=str(tiny.save_base(tmp_path_factory.mktemp("base")))))


@pytest.mark.acts("preview.steps", "preview.guidance", "preview.seed")
def test_equal_to_the_pipeline_itself(bundle):
    ours = preview.sample(bundle, CONFIG, ["fox", "cat"], 64)
    for i, prompt in enumerate(("fox", "cat")):
        generator = torch.Generator().manual_seed(7 + i)
        theirs = bundle.pipeline(
            prompt, negative_prompt="", num_inference_steps=2, guidance_scale=2.0, width=64, height=64, generator=generator
        ).images[0]
        assert np.abs(np.asarray(ours[i], int) - np.asarray(theirs, int)).max() <= 1


def test_a_prompt_keeps_its_picture_whatever_stands_after_it(bundle):
    prompts = ["fox", "cat", "key", "my", "style", "fox cat"]
    some, all_of_them = preview.sample(bundle, CONFIG, prompts[:5], 64), preview.sample(bundle, CONFIG, prompts, 64)
    for one, other in zip(some, all_of_them, strict=False):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_pictures_are_decoded_one_by_one(bundle, monkeypatch):
    """The VAE computes in float32 and would hold gigabytes for each."""
    decode, sizes = bundle.decode_latents, []
    monkeypatch.setattr(bundle, "decode_latents", lambda latents: sizes.append(len(latents)) or decode(latents))
    assert len(preview.sample(bundle, CONFIG, ["fox", "cat", "key"], 64)) == 3
    assert sizes == [1, 1, 1]


def test_random_state_and_modes_are_untouched(bundle):
    bundle.unet.train()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    preview.sample(bundle, CONFIG, ["fox"], 64)
    assert torch.equal(torch.rand(3), expected)
    assert bundle.unet.training and not bundle.pipeline.text_encoder.training
    bundle.unet.eval()


@pytest.mark.acts("preview.width")
def test_size_follows_the_settings(bundle):
    assert preview.sample(bundle, PreviewConfig(steps=1, width=96), ["fox"], 64)[0].size == (96, 64)


def test_sheet_shows_before_above_after(tmp_path: Path):
    red, blue = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 255))
    sheet = preview.before_after(["a fox", "a very long prompt " * 9], [red, red], [blue, blue])
    pixels = np.asarray(sheet)
    rows_red = np.flatnonzero((pixels == (255, 0, 0)).all(-1).any(1))
    rows_blue = np.flatnonzero((pixels == (0, 0, 255)).all(-1).any(1))
    assert rows_red.max() < rows_blue.min()
    assert (pixels == (255, 0, 0)).all(-1).sum() == 2 * 192 * 192
    preview.save_image(tmp_path / "sheet.png", sheet)
    assert Image.open(tmp_path / "sheet.png").size == sheet.size


@pytest.mark.parametrize("form", ["folder", "file"])
def test_sdxl_previews_are_its_pipelines_own(places, form):
    bundle = load(ModelConfig(base=str(places["sdxl", form])))
    ours = preview.sample(bundle, CONFIG, ["a fox"], 64)[0]
    generator = torch.Generator().manual_seed(7)
    theirs = bundle.pipeline(
        "a fox", negative_prompt="", num_inference_steps=2, guidance_scale=2.0, width=64, height=64, generator=generator
    ).images[0]
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


@pytest.mark.acts("preview.negative")
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_prompts_are_encoded_as_captions_are(places, family, monkeypatch):
    """Layer and chunks are the training's, for the prompt and for the negative one."""
    bundle = load(ModelConfig(base=str(places[family, "file"]), clip_skip=2, caption_chunks=2))
    seen = {}
    monkeypatch.setattr(type(bundle.pipeline), "__call__", lambda self, **given: seen.update(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preview.sample(bundle, PreviewConfig(negative="blurred"), ["a fox"], 64)
    for name, text in (("prompt_embeds", "a fox"), ("negative_prompt_embeds", "blurred")):
        states = bundle.encode_text([text])
        expected = states if family == "sd1" else states[0]
        assert torch.equal(seen[name], expected) and expected.shape[1] == 154
        if family == "sdxl":
            assert torch.equal(seen[name.replace("prompt", "pooled_prompt")], states[1])


def test_with_zero_terminal_snr_previews_start_from_pure_noise(places):
    """The first prediction is made at the last timestep, where a latent's brightness is not told by its noise."""
    bundle = load(ModelConfig(base=str(places["sd2", "file"]), zero_terminal_snr=True))
    times = []
    hook = bundle.unet.register_forward_pre_hook(lambda module, given: times.append(int(given[1])))
    picture = preview.sample(bundle, CONFIG, ["a fox"], 64)[0]
    hook.remove()
    assert times == [999, 499] and picture.size == (64, 64)
