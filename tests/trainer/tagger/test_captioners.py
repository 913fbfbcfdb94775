"""Each captioner against its model called by hand, with the pictures prepared by the formula."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, Florence2ForConditionalGeneration

from tests.trainer.tagger.models import SIDE, TAGS, WORDS, save_blip, save_florence, save_wd14
from trainer.errors import InputError
from trainer.tagger.captioner import open_captioner
from trainer.tagger.wd14 import prepare, readable

PICTURE = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(side):
    """Resized (bicubic), 0..1, less CLIP's mean, over its deviation."""
    resized = np.array(Image.fromarray(PICTURE).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy(((resized - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]


def test_blip(tmp_path):
    folder = save_blip(tmp_path / "blip")
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokens = model.generate(pixel_values=clip_pixels(32), max_new_tokens=75, num_beams=3, do_sample=False)[0].tolist()
    words = dict(enumerate((folder / "vocab.txt").read_text().split("\n")))
    expected = " ".join(words[token] for token in tokens if token > 5)
    assert expected and open_captioner(folder, 0.35).describe(PICTURE) == expected


def test_florence(tmp_path):
    folder = save_florence(tmp_path / "florence")
    words = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", "<image>", *WORDS]))
    told = ["Describe", "in", "detail", "what", "is", "shown", "in", "the", "image."]
    asked = [4] * 5 + [0] + [words.index(word) for word in told]
    model = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    captioner = open_captioner(folder, 0.35)
    seen = captioner.processor(images=Image.fromarray(PICTURE), text="<DETAILED_CAPTION>", return_tensors="pt")
    assert seen.input_ids[0, : len(asked)].tolist() == asked
    torch.testing.assert_close(seen.pixel_values, clip_pixels(64), atol=1e-5, rtol=0)
    tokens = model.generate(**seen, max_new_tokens=75, num_beams=3, do_sample=False)[0].tolist()
    expected = " ".join(words[token] for token in tokens if token > 4)
    assert expected and captioner.describe(PICTURE) == expected


def test_wd14_sees_a_white_square_blue_first():
    wide = np.full((4, 8, 3), (255, 128, 0), np.uint8)
    seen = prepare(wide, 8)
    assert seen.shape == (1, 8, 8, 3) and seen.dtype == np.float32
    assert (seen[0, :2] == 255).all() and (seen[0, 6:] == 255).all()
    assert (seen[0, 2:6] == (0, 128, 255)).all()
    tall = prepare(PICTURE, 25)
    square = np.full((50, 50, 3), 255, np.uint8)
    square[:, 5:45] = PICTURE
    expected = np.array(Image.fromarray(square).resize((25, 25), Image.Resampling.BICUBIC))[..., ::-1]
    np.testing.assert_array_equal(tall[0], expected.astype(np.float32))


def test_wd14_tags_by_probability_and_category(tmp_path):
    wanted = np.array([0.99, 0.5, 0.36, 0.34, 0.9, 0.8])
    weights = np.zeros((3, len(TAGS)))
    weights[0] = 0.002  # blue; an even blue picture of 255 on no white
    bias = np.log(wanted / (1 - wanted)) - 255 * weights[0]
    tagger = open_captioner(save_wd14(tmp_path / "wd14", weights, bias), 0.35)
    blue = np.full((5, 5, 3), (0, 0, 255), np.uint8)
    assert tagger.side == SIDE
    assert tagger.describe(blue) == "some hero, red fox, ^_^"
    tagger.threshold = 0.33
    assert tagger.describe(blue) == "some hero, red fox, ^_^, snow"
    tagger.threshold = 0.95
    assert tagger.describe(blue) == ""
    assert tagger.describe(np.full((5, 5, 3), (0, 0, 0), np.uint8)) == "", "black lowers every logit by 0.51"


@pytest.mark.parametrize(("tag", "text"), [("red_fox", "red fox"), ("^_^", "^_^"), ("o_o", "o_o"), ("1girl", "1girl")])
def test_underscores_are_spaces_but_for_faces(tag, text):
    assert readable(tag) == text


def test_what_is_no_captioner_is_refused_in_one_line(tmp_path, monkeypatch):
    def refused(folder, *words):
        with pytest.raises(InputError) as caught:
            open_captioner(folder, 0.35)
        assert all(word in str(caught.value) for word in words), caught.value
        assert caught.value.fix and "\n" not in caught.value.what

    empty = tmp_path / "empty"
    refused(empty, "no such folder")
    empty.mkdir()
    refused(empty, "no config.json")
    (empty / "config.json").write_text("{")
    refused(empty, "no model's config")
    (empty / "config.json").write_text(json.dumps({"model_type": "llama"}))
    refused(empty, "'llama'")
    (empty / "config.json").write_text(json.dumps({"model_type": "florence2", "auto_map": {"AutoModel": "code.py"}}))
    refused(empty, "code of its own", "florence-community")
    (empty / "config.json").write_text(json.dumps({"model_type": "blip"}))
    refused(empty, "cannot be loaded")
    (empty / "model.onnx").write_bytes(b"not onnx")
    refused(empty, "selected_tags.csv is missing")
    (empty / "selected_tags.csv").write_text("a,b\n1,2\n")
    refused(empty, "no table of tags")
    (empty / "selected_tags.csv").write_text("name,category\nfox,0\n")
    refused(empty, "no ONNX model")
    wrong = save_wd14(tmp_path / "wrong", np.zeros((3, 6)), np.zeros(6))
    (wrong / "selected_tags.csv").write_text("name,category\nfox,0\n")
    with pytest.raises(InputError, match="6 probabilities, but selected_tags.csv has 1"):
        open_captioner(wrong, 0.35).describe(PICTURE)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(wrong, "onnxruntime", "pip install onnxruntime==1.32.0")
