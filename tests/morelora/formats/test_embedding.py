"""Embedding files: their keys, foreign forms, bundled in an adapter file, and diffusers' own reading of ours."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morelora import AdapterError, FormatError, UnreadTensorsWarning, load, load_embedding
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.embedding import WORD_KEY, bundled, decode, encode, take_bundled
from tests.morelora import clip
from tests.morelora.formats import sd

SD = {"text_encoder": torch.randn(2, 16, generator=torch.Generator().manual_seed(1))}
SDXL = SD | {"text_encoder_2": torch.randn(2, 24, generator=torch.Generator().manual_seed(2))}


def test_keys_of_both_families():
    assert {key: tuple(tensor.shape) for key, tensor in encode(SD).items()} == {"emb_params": (2, 16)}
    assert {key: tuple(tensor.shape) for key, tensor in encode(SDXL).items()} == {"clip_l": (2, 16), "clip_g": (2, 24)}
    assert list(bundled("zxq style", SD)) == ["bundle_emb.zxq style.string_to_param.*"]
    assert list(bundled("<a.b>\n", SDXL)) == ["bundle_emb.<a b>.clip_l", "bundle_emb.<a b>.clip_g"]
    with pytest.raises(FormatError, match="no character"):
        bundled("..", SD)


@pytest.mark.parametrize("form", [SD, SDXL], ids=["sd", "sdxl"])
def test_a_bundle_comes_apart_again(form):
    rest, words = take_bundled({"lora_unet_x.alpha": torch.ones(())} | bundled("zxq", form) | bundled("other", form))
    assert list(rest) == ["lora_unet_x.alpha"] and list(words) == ["zxq", "other"]
    assert all(torch.equal(words["zxq"][name], form[name]) for name in form)


@pytest.mark.parametrize("key", ["emb_params", "<zxq>", "string_to_param.*"])
def test_forms_of_other_programs(key):
    assert torch.equal(decode({key: SD["text_encoder"]})["text_encoder"], SD["text_encoder"])
    assert decode({key: SD["text_encoder"][0]})["text_encoder"].shape == (1, 16)


@pytest.mark.parametrize("tensors", [{}, {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, {"emb_params": torch.ones(2, 3, 4)}])
def test_what_is_no_embedding_is_told(tensors):
    with pytest.raises(FormatError, match="no embedding|is meant"):
        decode(tensors)


def test_diffusers_reads_our_file_as_we_do(tmp_path):
    file = tmp_path / "style-embedding.safetensors"
    write(file, encode(SD), {WORD_KEY: "zxq"})
    ours, theirs = clip.sd(), clip.sd()
    embedding = load_embedding(ours, file)
    assert embedding.word == "zxq" and not any(p.requires_grad for p in embedding.parameters())
    theirs.load_textual_inversion(str(tmp_path), weight_name=file.name, token="zxq", local_files_only=True)
    prompt = theirs.maybe_convert_prompt("zxq fox", theirs.tokenizer)
    expected = theirs.text_encoder(clip.ids(theirs, prompt))[0]
    assert torch.equal(ours.text_encoder(clip.ids(ours, "zxq fox"))[0], expected)
    assert load_embedding(clip.sd(), file, "other").word == "other"


def test_diffusers_reads_our_sdxl_file_as_we_do(tmp_path):
    """As diffusers documents it: one tensor of the file for each text encoder."""
    file = tmp_path / "zxq.safetensors"
    write(file, encode(SDXL), {})
    ours, theirs = clip.sdxl(), clip.sdxl()
    assert load_embedding(ours, file).word == "zxq"
    for key, name in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = getattr(theirs, f"text_encoder{name}"), getattr(theirs, f"tokenizer{name}")
        theirs.load_textual_inversion(load_file(file)[key], token="zxq", text_encoder=encoder, tokenizer=tokenizer)
        prompt = theirs.maybe_convert_prompt("zxq fox", tokenizer)
        one = getattr(ours, f"text_encoder{name}")(clip.ids(ours, "zxq fox", f"tokenizer{name}"), output_hidden_states=True)
        other = encoder(clip.ids(theirs, prompt, f"tokenizer{name}"), output_hidden_states=True)
        assert torch.equal(one.hidden_states[-2], other.hidden_states[-2])


def adapter_file(path: Path, words: dict[str, dict[str, torch.Tensor]]) -> Path:
    tensors = FORMS["webui"](sd.trained(sd.small(), rank=2))
    for word, vectors in words.items():
        tensors |= bundled(word, vectors)
    write(path, tensors, {})
    return path


def words(count: int) -> dict[str, dict[str, torch.Tensor]]:
    return {f"word{i}": {"text_encoder": torch.randn(2, 40)} for i in range(count)}


def test_load_takes_bundled_words_in_and_out(tmp_path):
    found = words(2)
    path, models = adapter_file(tmp_path / "x.safetensors", found), sd.small()
    tokenizer, plain = clip.tokenizer(), clip.tokenizer()
    loaded = load(models | {"tokenizer": tokenizer}, path)
    assert [embedding.word for embedding in loaded.embeddings] == ["word0", "word1"]
    ids = torch.tensor([tokenizer("word1", add_special_tokens=False).input_ids])
    assert torch.equal(models["text_encoder"].get_input_embeddings()(ids)[0], found["word1"]["text_encoder"])
    loaded.remove()
    assert tokenizer("word1").input_ids == plain("word1").input_ids
    assert type(models["text_encoder"].get_input_embeddings()) is torch.nn.Embedding


def test_bundled_words_that_have_no_place_are_listed(tmp_path):
    path = adapter_file(tmp_path / "x.safetensors", {"zxq": {"text_encoder": torch.randn(2, 41)}})
    models = sd.small()
    with pytest.raises(FormatError, match="the embedding 'zxq' is .2, 41.*another family"):
        load(models | {"tokenizer": clip.tokenizer()}, path)
    fitting = adapter_file(tmp_path / "y.safetensors", words(1))
    with pytest.raises(FormatError, match="the embedding 'word0' needs the tokenizer"):
        load(models, fitting)
    with pytest.warns(UnreadTensorsWarning) as warned:
        loaded = load(models, fitting, strict=False)
    assert len(loaded) > 0 and loaded.embeddings == [] and "word0" in warned[0].message.unread[0]


def test_the_two_kinds_of_file_are_told_apart(tmp_path):
    write(tmp_path / "e.safetensors", encode(SD), {})
    with pytest.raises(FormatError, match="morelora.load_embedding"):
        load(sd.small(), tmp_path / "e.safetensors")
    with pytest.raises(FormatError, match="no embedding of a word"):
        load_embedding(clip.sd(), adapter_file(tmp_path / "x.safetensors", {}))
    save_file({"emb_params": torch.ones(2, 15)}, tmp_path / "w.safetensors")
    with pytest.raises(AdapterError, match="another family"):
        load_embedding(clip.sd(), tmp_path / "w.safetensors")
