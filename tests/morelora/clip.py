"""CLIP text encoders and a tokenizer small enough for unit tests."""

from __future__ import annotations

import string
from types import SimpleNamespace

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase), ",", ",</w>", START, END]
END_ID = VOCABULARY.index(END)


def tokenizer() -> CLIPTokenizer:
    """A token a letter; the end mark has the highest id, as in CLIP."""
    return CLIPTokenizer({token: i for i, token in enumerate(VOCABULARY)}, [], model_max_length=32)


def encoder(width: int = 16, projection: bool = False, end: int = END_ID) -> nn.Module:
    """Two layers with random weights; ``end = 2`` is what the configs of SD and SDXL say."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        projection_dim=width,
        bos_token_id=END_ID - 1,
        eos_token_id=end,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(config).eval().requires_grad_(False)


class Pipe(TextualInversionLoaderMixin, SimpleNamespace):
    """As much of a diffusers pipeline as its loader of embeddings needs."""

    hf_device_map = None

    @property
    def components(self) -> dict[str, object]:
        return vars(self)


def sd() -> Pipe:
    return Pipe(text_encoder=encoder(), tokenizer=tokenizer())


def sdxl(end: int = END_ID) -> Pipe:
    return Pipe(
        text_encoder=encoder(16), tokenizer=tokenizer(),
        text_encoder_2=encoder(24, projection=True, end=end), tokenizer_2=tokenizer(),
    )  # fmt: skip


def ids(pipe: Pipe, text: str, name: str = "tokenizer") -> torch.Tensor:
    return getattr(pipe, name)(text, padding="max_length", max_length=32, return_tensors="pt").input_ids
