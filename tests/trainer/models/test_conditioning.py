"""What conditions the denoiser: layers, chunks, pooled text and frames, against diffusers and models cut by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.trainer import miniatures
from trainer.conditioning import Frames
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.models import Bundle, load
from trainer.models.sdxl import time_ids

Loader = Callable[..., Bundle]
CAPTIONS = ["a photo of a cat", "two foxes under a red umbrella"]


@pytest.fixture(scope="module")
def bundles(places) -> Loader:  # noqa: ANN001
    """Families' bundles, loaded once, with the settings of the condition changed."""
    loaded = {family: load(ModelConfig(base=str(places[family, "file"]))) for family in miniatures.FAMILIES}

    def get(family: str, clip_skip: int = 1, chunks: int = 1) -> Bundle:
        bundle = loaded[family]
        bundle.clip_skip, bundle.chunks = clip_skip, chunks
        return bundle

    return get


@pytest.mark.acts("model.clip_skip", "model.caption_chunks")
def test_the_settings_of_the_condition_are_the_bundles(places, bundles):
    asked = load(ModelConfig(base=str(places["sd1", "file"]), clip_skip=2, caption_chunks=2)).encode_text(CAPTIONS)
    assert asked.shape[1] == 154 and torch.equal(asked, bundles("sd1", clip_skip=2, chunks=2).encode_text(CAPTIONS))
    assert not torch.allclose(asked, bundles("sd1", clip_skip=1, chunks=2).encode_text(CAPTIONS))


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("skip", [1, 2, 3])
def test_clip_skip_reads_a_text_encoder_without_its_last_layers(bundles, family, skip):
    bundle = bundles(family, clip_skip=skip)
    whole = bundle.pipeline.text_encoder
    config = CLIPTextConfig(**whole.config.to_dict() | {"num_hidden_layers": whole.config.num_hidden_layers - skip + 1})
    cut = CLIPTextModel(config).eval()
    cut.load_state_dict({key: tensor for key, tensor in whole.state_dict().items() if key in cut.state_dict()})
    tokens = bundle.pipeline.tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids
    torch.testing.assert_close(bundle.encode_text(CAPTIONS), cut(tokens).last_hidden_state)


@pytest.mark.parametrize("skip", [1, 2])
def test_sdxl_is_encoded_as_by_its_pipeline(bundles, skip):
    bundle = bundles("sdxl", clip_skip=skip)
    expected = bundle.pipeline.encode_prompt(
        CAPTIONS, device="cpu", do_classifier_free_guidance=False, clip_skip=None if skip == 1 else skip - 1
    )
    hidden, pooled = bundle.encode_text(CAPTIONS)
    assert torch.equal(hidden, expected[0]) and torch.equal(pooled, expected[2])


@pytest.mark.parametrize("family", miniatures.FAMILIES)
def test_layers_that_nothing_reads_get_no_gradient_and_no_adapter(bundles, family):
    """The oracle is autograd: a layer is read where a gradient reaches it."""
    bundle = bundles(family, clip_skip=2)
    for encoder in bundle.text_encoders.values():
        encoder.requires_grad_(True)
    states = bundle.encode_text(CAPTIONS)
    total = sum(part.square().sum() for part in (states if isinstance(states, tuple) else (states,)))
    total.backward()
    for component, encoder in bundle.text_encoders.items():
        for path, layer in encoder.named_modules():
            if isinstance(layer, torch.nn.Linear):
                has_gradient = layer.weight.grad is not None and bool(layer.weight.grad.any())
                assert bundle.is_read(f"{component}.{path}") == has_gradient, path
        encoder.zero_grad()
        encoder.requires_grad_(False)
    assert bundle.is_read("unet.down_blocks.0.attentions.0.proj_in")


@pytest.mark.parametrize("family", miniatures.FAMILIES)
def test_a_long_caption_is_its_chunks_one_behind_the_other(bundles, family):
    long, second = " ".join(["cat"] * 100), " ".join(["cat"] * 25)
    whole = bundles(family, chunks=2).encode_text([long, "fox"])
    first, rest = bundles(family).encode_text([long, "fox"]), bundles(family).encode_text([second, ""])
    if family == "sdxl":
        assert whole[1].shape == first[1].shape
        torch.testing.assert_close(whole[1], first[1])
        whole, first, rest = whole[0], first[0], rest[0]
    torch.testing.assert_close(whole, torch.cat([first, rest], dim=1))


def test_overflow_and_length_count_all_chunks(bundles):
    caption = " ".join(["cat"] * 160) + " fox"
    assert bundles("sd1", chunks=1).max_length == 77 and bundles("sd1", chunks=2).max_length == 152
    assert bundles("sd1", chunks=2).overflow(caption) == " ".join(["cat"] * 10) + " fox"
    assert bundles("sd1", chunks=3).overflow(caption) == ""


def test_a_word_added_later_does_not_take_the_place_of_the_end_mark(bundles):
    """An embedding's word has a number above the end mark's, which the pooled text must not be taken at."""
    bundle = bundles("sdxl")
    second = bundle.pipeline.text_encoder_2
    rows = torch.full((1, 77), 0)
    rows[0, :4] = torch.tensor([49406, 2368, 320, 49407])
    expected = second(rows, output_hidden_states=True)
    position = second.text_model.final_layer_norm(expected.hidden_states[-1])[:, 3]
    torch.testing.assert_close(expected.text_embeds, second.text_projection(position))
    assert second.text_model.eos_token_id == 49407


def test_frames_are_heights_before_widths():
    frames = Frames(original=[(640, 480), (300, 200)], crops=[(7, 3), (0, 1)], target=(512, 384))
    assert time_ids(frames).tolist() == [[480, 640, 3, 7, 384, 512], [200, 300, 1, 0, 384, 512]]


def test_sdxl_is_conditioned_on_frames_and_pooled_text(bundles):
    bundle = bundles("sdxl")
    torch.manual_seed(0)
    noisy, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    states = bundle.encode_text(CAPTIONS)
    frames = Frames(original=[(640, 480), (300, 200)], crops=[(7, 3), (0, 1)], target=(64, 64))
    ids = torch.tensor([[480, 640, 3, 7, 64, 64], [200, 300, 1, 0, 64, 64]])
    with torch.no_grad():
        found = bundle.predict(noisy, t, states, frames)
        added = {"text_embeds": states[1], "time_ids": ids}
        expected = bundle.unet(noisy, t, encoder_hidden_states=states[0], added_cond_kwargs=added).sample
        other = bundle.predict(noisy, t, states, Frames(frames.original, [(0, 0), (0, 0)], frames.target))
    assert torch.equal(found, expected) and not torch.equal(found, other)


def test_a_clip_skip_that_leaves_nothing_is_refused(places):
    with pytest.raises(InputError, match="which has 3 layers"):
        load(ModelConfig(base=str(places["sd1", "file"]), clip_skip=4))
