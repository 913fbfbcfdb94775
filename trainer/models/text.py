"""Captions to tokens to states, shared by the families: chunks of a long caption, and which layer's states are taken.

A caption of more tokens than one window (77) holds is cut into chunks of 75, each between its own start and end mark and padded;
each chunk goes through the text encoder alone, and the states stand one behind the other: ``(B, chunks * 77, D)``. A1111 and
ComfyUI read long prompts so; A1111 also moves a cut back to a near comma. They use only as many chunks as a prompt needs; here
the number is fixed, so that cached states stack, and a short caption's last chunks are empty. sd-scripts cuts at the same places
and then keeps only the first start and the last end mark (``75 * chunks + 2`` states).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def token_rows(tokenizer: Any, captions: Sequence[str], chunks: int) -> Tensor:
    """Token numbers ``(B * chunks, window)``; what does not fit the chunks is cut off."""
    window = tokenizer.model_max_length
    room = window - 2
    rows = []
    for ids in tokenizer(list(captions), add_special_tokens=False).input_ids:
        for start in range(0, chunks * room, room):
            words = ids[start : start + room]
            row = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
            rows.append(row + [tokenizer.pad_token_id] * (window - len(row)))
    return torch.tensor(rows)


def join_chunks(states: Tensor, chunks: int) -> Tensor:
    """``(B * chunks, window, D) -> (B, chunks * window, D)``."""
    return states.view(-1, chunks * states.shape[1], states.shape[2])


def overflow(tokenizer: Any, caption: str, chunks: int) -> str:
    """The part of a caption behind the last chunk."""
    ids = tokenizer(caption, add_special_tokens=False).input_ids
    return str(tokenizer.decode(ids[chunks * (tokenizer.model_max_length - 2) :])).strip()


def length(tokenizer: Any, chunks: int) -> int:
    """Tokens of a caption that are read, with one start and one end mark."""
    return chunks * (int(tokenizer.model_max_length) - 2) + 2


def body(encoder: Any) -> Any:
    """The transformer inside a text encoder: itself, or what ``CLIPTextModelWithProjection`` wraps."""
    return getattr(encoder, "text_model", encoder)


def layer_count(encoder: Any) -> int:
    """Layers of a text encoder."""
    return int(encoder.config.num_hidden_layers)


def layer_number(path: str) -> int | None:
    """The text encoder's layer that a module's path lies in."""
    match = re.search(r"encoder\.layers\.(\d+)\.", path)
    return int(match[1]) if match else None
