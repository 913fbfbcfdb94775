"""Embedding files: vectors of a word, alone or bundled in an adapter file.

=================  ==========================================  =======================================
                   SD 1.x and 2.x                              SDXL
=================  ==========================================  =======================================
file of its own    ``emb_params (n, d)``                       ``clip_l (n, 768)``, ``clip_g (n, 1280)``
in an adapter      ``bundle_emb.NAME.string_to_param.*``       ``bundle_emb.NAME.clip_l``, ``….clip_g``
=================  ==========================================  =======================================

A1111, Forge, ComfyUI, InvokeAI and diffusers' ``load_textual_inversion`` read the first row. The second is read by A1111 and,
with its name, by ComfyUI; diffusers refuses the whole adapter file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from morelora.errors import FormatError

BUNDLE = "bundle_emb."
ALONE, STAR = "emb_params", "string_to_param.*"
SDXL = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
WORD_KEY = "morelora.word"
"""Metadata entry: the word that the vectors were trained under."""
MAX_VECTORS = 75
"""A prompt has no more places."""


def encode(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of its own, from ``(n, d)`` by text encoder."""
    return _keyed(vectors, ALONE)


def bundled(word: str, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same as entries of an adapter file."""
    return {f"{BUNDLE}{safe_name(word)}.{key}": tensor for key, tensor in _keyed(vectors, STAR).items()}


def safe_name(word: str) -> str:
    """A word as part of a key: readers cut at dots, and no control character may stand there. Raises ``FormatError``."""
    name = " ".join(re.sub(r"[\x00-\x1f\x7f.]+", " ", word).split())
    if not name:
        raise FormatError(f"{word!r} has no character that a name in a file can have")
    return name


def decode(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Vectors ``(n, d)`` by text encoder, whatever program wrote them.

    Read are the forms above and diffusers' own, one tensor ``(d,)`` or ``(n, d)`` under the word.

    Raises:
        FormatError: the tensors are none of them, or no vectors.
    """
    if tensors.keys() == set(SDXL.values()):
        found = {component: tensors[key] for component, key in SDXL.items()}
    elif len(tensors) == 1:
        found = {"text_encoder": next(iter(tensors.values()))}
    else:
        raise FormatError(f"{', '.join(sorted(tensors)[:5]) or 'no tensors'}: this is no embedding of a word")
    found = {component: tensor[None] if tensor.dim() == 1 else tensor for component, tensor in found.items()}
    for component, tensor in found.items():
        if tensor.dim() != 2 or not 1 <= len(tensor) <= MAX_VECTORS:
            raise FormatError(
                f"the embedding for {component} is {tuple(tensor.shape)}: (n, d) with n up to {MAX_VECTORS} is meant"
            )
    return found


def take_bundled(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """An adapter file's tensors without its embeddings, and these by name. Raises ``FormatError`` where one is damaged."""
    own: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(BUNDLE):
            name, _, entry = key.removeprefix(BUNDLE).partition(".")
            own.setdefault(name, {})[entry] = tensor
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(BUNDLE)}
    return rest, {name: decode(entries) for name, entries in own.items()}


def is_embedding(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file of these tensors is an embedding and no adapter: every adapter has dots in its keys."""
    return tensors.keys() == set(SDXL.values()) or (len(tensors) == 1 and "." not in next(iter(tensors)))


def _keyed(vectors: Mapping[str, Tensor], alone: str) -> dict[str, Tensor]:
    if "text_encoder_2" in vectors:
        return {SDXL[component]: tensor.float() for component, tensor in vectors.items()}
    return {alone: vectors["text_encoder"].float()}
