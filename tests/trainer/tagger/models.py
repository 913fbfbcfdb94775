"""Tiny captioners with random weights, in the layout of the real ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)

WORDS = ["a", "red", "fox", "in", "snow", "the", "boat", "Describe", "in", "detail", "what", "is", "shown", "image."]
TAGS = [("general", "9"), ("red_fox", "0"), ("^_^", "0"), ("snow", "0"), ("some_hero", "4"), ("other_hero", "4")]
SIDE = 8


def save_blip(folder: Path) -> Path:
    """One layer each, 16 wide, pictures of 32 pixels."""
    torch.manual_seed(0)
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
    text = {**small, **marks, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 128}
    vision = {**small, "image_size": 32, "patch_size": 16}
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), additional_special_tokens=["[DEC]"])
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def save_florence(folder: Path) -> Path:
    """One block a stage, 16 wide, pictures of 64 pixels."""
    torch.manual_seed(0)
    words = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", "<image>", *WORDS]))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 128, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    }  # fmt: skip
    vision = {
        "depths": [1] * 4, "embed_dim": [8, 8, 8, 16], "num_heads": [1] * 4, "num_groups": [1] * 4, "window_size": 2,
        "projection_dim": 16, "max_position_embeddings": 10, "max_temporal_embeddings": 10,
    }  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 5
    Florence2Processor(pictures, fast).save_pretrained(folder)
    return folder


def save_wd14(folder: Path, weights: np.ndarray, bias: np.ndarray) -> Path:
    """``sigmoid(mean of the picture @ weights + bias)``: ``[batch, 8, 8, 3]`` to a probability a tag."""
    folder.mkdir()
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    values = {"axes": np.array([1, 2]), "weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    graph = helper.make_graph(
        nodes, "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(bias)])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["tag_id", "name", "category", "count"])
        table.writerows([index, name, category, 100] for index, (name, category) in enumerate(TAGS))
    return folder
