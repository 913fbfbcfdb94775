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


def test_random_state_and_modes_are_untouched(bundle):
    bundle.unet.train()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    preview.sample(bundle, CONFIG, ["fox"], 64)
    assert torch.equal(torch.rand(3), expected)
    assert bundle.unet.training and not bundle.pipeline.text_encoder.training
    bundle.unet.eval()


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
