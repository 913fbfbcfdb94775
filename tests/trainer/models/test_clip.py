"""CLIP's vocabulary, built from the merges that ship."""

from __future__ import annotations

import gzip

import pytest

from trainer.errors import InputError
from trainer.models import clip


def test_the_vocabulary_is_clips():
    entries, merges = clip.vocabulary()
    assert len(entries) == 49408 and len(merges) == 48894
    assert (entries["!"], entries["!</w>"], entries["<|startoftext|>"], entries["<|endoftext|>"]) == (0, 256, 49406, 49407)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
        ("A  Photo\nof a CAT", [49406, 320, 1125, 539, 320, 2368, 49407]),
        ("", [49406, 49407]),
    ],
)
def test_texts_have_clips_numbers(text, ids):
    assert clip.build_tokenizer(clip.ASSETS / "sd15" / "tokenizer")(text).input_ids == ids


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"#version\na b\nc d e\n", mtime=0), gzip.compress(b"#version\na b\n", mtime=0), None],
)
def test_a_damaged_vocabulary_is_told(tmp_path, monkeypatch, content):
    file = tmp_path / "merges.gz"
    whole = clip.MERGES_FILE.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    monkeypatch.setattr(clip, "MERGES_FILE", file)
    clip.vocabulary.cache_clear()
    with pytest.raises(InputError, match="merges.gz, CLIP's vocabulary, is damaged") as refused:
        clip.vocabulary()
    assert "assets/clip" in refused.value.fix


def test_any_letter_can_be_read():
    tokenizer = clip.build_tokenizer(clip.ASSETS / "sd15" / "tokenizer")
    ids = tokenizer("ein Füchslein, 狐 🦊 №5").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1]) == "ein füchslein , 狐 🦊 № 5"


@pytest.mark.parametrize(
    ("folder", "padding"),
    [("sd15/tokenizer", 49407), ("sd21/tokenizer", 0), ("sdxl/tokenizer", 49407), ("sdxl/tokenizer_2", 0)],
)
def test_families_differ_in_what_they_pad_with(folder, padding):
    tokenizer = clip.build_tokenizer(clip.ASSETS / folder)
    assert tokenizer("cat", padding="max_length").input_ids == [49406, 2368, 49407] + [padding] * 74
