"""Textual inversion: a word of its own in a text encoder's vocabulary, whose vectors are the only rows that train.

The frozen table is not touched: ``TokenVectors`` stands in its place and gives the rows of the new tokens, and the word is
spelt as ``<word>_1 … <word>_n`` inside the tokenizer, so that whoever encodes or counts text sees all its tokens.
``EmbeddingSet.remove`` puts table and tokenizer back, bit for bit.

Source: Gal et al. 2022, "An Image is Worth One Word", arXiv:2208.01618.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelora.errors import AdapterError
from morelora.state import copy_state

LEGACY_END = 2
"""``eos_token_id`` of older CLIP configs: transformers then pools at the highest id, which a new token would be."""


class TokenVectors(nn.Module):
    """``e(id) = vectors[id - first]`` for the ``n`` new ids, ``table[id]`` for all others.

    Args:
        base: the frozen table, ``(vocabulary, d)``.
        first: the first new id.
        start: ``(n, d)``; where the vectors start, and what they are while ``learnt`` is off.
    """

    def __init__(self, base: nn.Module, first: int, start: Tensor) -> None:
        super().__init__()
        self.base = base
        self.first = first
        self.learnt = True
        start = start.detach().float().to(base.weight.device)
        self.vectors = nn.Parameter(start.clone())
        self.register_buffer("start", start.clone(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The frozen table."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        place = ids - self.first
        is_new = (place >= 0) & (place < len(self.vectors))
        known = self.base(ids.masked_fill(is_new, 0))
        vectors = self.vectors if self.learnt else self.start
        new = F.embedding(place.clamp(0, len(vectors) - 1), vectors)
        return torch.where(is_new[..., None], new.to(known.dtype), known)


@dataclass(frozen=True)
class Replaced:
    """An attribute that stands otherwise than before."""

    owner: Any
    name: str
    before: Any
    after: Any

    @classmethod
    def make(cls, owner: Any, name: str, after: Any) -> Replaced:
        """Replace it."""
        before = getattr(owner, name)
        setattr(owner, name, after)
        return cls(owner, name, before, after)

    @property
    def is_on_top(self) -> bool:
        """Whether nobody has replaced it since."""
        return getattr(self.owner, self.name) is self.after

    def undo(self) -> None:
        """Put back what was there."""
        setattr(self.owner, self.name, self.before)


class EmbeddingSet:
    """One word's vectors in every text encoder of a model, by the encoder's name."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.layers: dict[str, TokenVectors] = {}
        self.tokenizers: dict[str, Any] = {}
        self.replaced: list[Replaced] = []

    def __len__(self) -> int:
        """Vectors in one text encoder."""
        return max((len(layer.vectors) for layer in self.layers.values()), default=0)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The vectors, ``(n, d)``, as ``<text encoder>.vectors``."""
        return ((f"{name}.vectors", layer.vectors) for name, layer in self.layers.items())

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def vectors(self) -> dict[str, Tensor]:
        """The learnt vectors by text encoder."""
        return {name: layer.vectors.detach() for name, layer in self.layers.items()}

    def plain_tokenizers(self) -> dict[str, Any]:
        """Copies of the tokenizers as they were before the word came, by text encoder."""
        found = {}
        for name, tokenizer in self.tokenizers.items():
            before = next(each.before for each in self.replaced if each.owner is tokenizer)
            found[name] = copy.copy(tokenizer)
            found[name]._tokenizer = type(before).from_str(before.to_str())
        return found

    @property
    def learnt(self) -> bool:
        """Whether the word has its learnt vectors; off, it has those that it started from."""
        return all(layer.learnt for layer in self.layers.values())

    @learnt.setter
    def learnt(self, value: bool) -> None:
        for layer in self.layers.values():
            layer.learnt = value

    def state(self) -> dict[str, Tensor]:
        """The vectors as they are, for checkpoints."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave. Raises ``AdapterError`` where it does not fit."""
        copy_state(dict(self.named_parameters()), state, "this embedding")

    def remove(self) -> None:
        """Put the tables and the tokenizers back as they were, bit for bit.

        Raises:
            AdapterError: another embedding was added on top, and would be lost.
        """
        if not all(replaced.is_on_top for replaced in self.replaced):
            raise AdapterError(f"an embedding was added after {self.word!r}: remove that one first")
        for replaced in reversed(self.replaced):
            replaced.undo()
        self.layers, self.tokenizers, self.replaced = {}, {}, []


def attach_vectors(
    encoders: Mapping[str, nn.Module], tokenizers: Mapping[str, Any], word: str, vectors: Mapping[str, Tensor]
) -> EmbeddingSet:
    """Give ``word`` vectors of its own in every text encoder.

    Args:
        encoders: CLIP text encoders by name: ``text_encoder``, ``text_encoder_2``.
        tokenizers: their tokenizers under the same names.
        word: the placeholder; as whole words and in any case it stands for all vectors, in their order.
        vectors: ``(n, d)`` for each encoder, the same ``n`` in all.

    Raises:
        AdapterError: an encoder has no vectors or no tokenizer, a width does not fit, or the word cannot be a placeholder.
    """
    _check(encoders, tokenizers, word, vectors)
    made = EmbeddingSet(word)
    try:
        for name, encoder in encoders.items():
            first = _spell(tokenizers[name], word, len(vectors[name]), made.replaced)
            made.tokenizers[name] = tokenizers[name]
            made.layers[name] = _splice(encoder, first, vectors[name], made.replaced)
            _pool_at_end(encoder, tokenizers[name], made.replaced)
    except AdapterError:
        made.remove()
        raise
    return made


def names_of(word: str, count: int) -> list[str]:
    """The tokens that a word is spelt with: ``<word>_1 … <word>_n``."""
    return [f"{word}_{i}" for i in range(1, count + 1)]


def spelling(word: str, count: int, normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """A tokenizer's normalizer, as its JSON has it, that also writes ``word`` as its ``count`` tokens."""
    pattern = {"Regex": rf"(?<!\w){re.escape(word)}(?!\w)"}
    replace = {"type": "Replace", "pattern": pattern, "content": " ".join(names_of(word, count))}
    return {"type": "Sequence", "normalizers": [*([normalizer] if normalizer else []), replace]}


def _check(encoders: Mapping[str, nn.Module], tokenizers: Mapping[str, Any], word: str, vectors: Mapping[str, Tensor]) -> None:
    if encoders.keys() != vectors.keys():
        have = ", ".join(encoders) or "none"
        raise AdapterError(f"{word!r} has vectors for {', '.join(vectors)}, but the text encoders are: {have}")
    counts = {len(part) for part in vectors.values()}
    if len(counts) != 1 or not min(counts):
        raise AdapterError(f"{word!r} needs the same number of vectors, at least one, in each text encoder")
    for name, encoder in encoders.items():
        width = encoder.get_input_embeddings().weight.shape[1]
        if vectors[name].shape[1:] != (width,):
            shape = tuple(vectors[name].shape)
            raise AdapterError(f"{word!r} is {shape} in {name}, which is {width} wide: it was made for another family of models")
        if tokenizers.get(name) is None:
            raise AdapterError(f"{word!r} needs the tokenizer of {name}, which is not given")


def _spell(tokenizer: Any, word: str, count: int, replaced: list[Replaced]) -> int:
    """Teach a tokenizer the word, in a copy of its backend; returns the first of the new ids, which follow each other."""
    before = tokenizer.backend_tokenizer
    if any(each.owner is tokenizer for each in replaced):  # two text encoders may share one
        before = next(each.before for each in replaced if each.owner is tokenizer)
    is_first = tokenizer.backend_tokenizer is before
    own = tokenizer.added_tokens_encoder.keys() - set(tokenizer.all_special_tokens)
    taken = own & set(before.encode(word, add_special_tokens=False).tokens)
    word = (before.normalizer.normalize_str(word) if before.normalizer else word).strip()
    if taken or not word:
        raise AdapterError(f"{word!r} cannot be a placeholder: it is empty, or the tokenizer has a mark of its own for it")
    names = names_of(word, count)
    if is_first:
        content = json.loads(before.to_str())
        content["normalizer"] = spelling(word, count, content["normalizer"])
        replaced.append(Replaced.make(tokenizer, "_tokenizer", type(before).from_str(json.dumps(content))))
        if hasattr(tokenizer, "_wrap_decode_method_backend_tokenizer"):
            tokenizer._wrap_decode_method_backend_tokenizer()
        tokenizer.add_tokens(names)
    ids = tokenizer.convert_tokens_to_ids(names)
    if tokenizer(word, add_special_tokens=False).input_ids != ids:
        raise AdapterError(f"{word!r} cannot be a placeholder: the tokenizer does not keep it whole")
    return ids[0]


def _splice(encoder: nn.Module, first: int, vectors: Tensor, replaced: list[Replaced]) -> TokenVectors:
    table = encoder.get_input_embeddings()
    path = next(name for name, module in encoder.named_modules() if module is table)
    parent, _, leaf = path.rpartition(".")
    layer = TokenVectors(table, first, vectors).train(table.training)
    replaced.append(Replaced.make(encoder.get_submodule(parent), leaf, layer))
    return layer


def _pool_at_end(encoder: nn.Module, tokenizer: Any, replaced: list[Replaced]) -> None:
    """Let the pooled text be that of the end mark also where the config has the id of older CLIP configs."""
    for module in encoder.modules():
        if getattr(module, "eos_token_id", None) == LEGACY_END:
            replaced.append(Replaced.make(module, "eos_token_id", tokenizer.eos_token_id))
