"""Captions, and the tokenizer made for them.

A caption names the concept and, after it, the look: "fox, flat look, on blue". The own look has no words. Nonsense words
stand in a quarter of the captions and mean nothing, so that an unknown trigger word does not bend the base.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from .concepts import all_concepts
from .looks import LOOKS

EMPTY = 0.1  # share of empty captions, for guidance
NONSENSE = 0.3  # share of captions with a word that means nothing
LENGTH = 32  # tokens
_FILLERS = ("a", "picture", "of", "in", "the", "style", "with")
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"


class Captions:
    """Random captions for a concept in a look."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.names = [concept.name for concept in all_concepts()]
        self.pieces = [piece for piece in _merged(_words()) if piece not in _words()]

    def draw(self, concept: int, look: str) -> str:
        """One caption; the order varies a little, as users' captions do."""
        if self.random.random() < EMPTY:
            return ""
        name = self.names[concept]
        if self.random.random() < 0.08:
            name = f"a picture of {name}"
        parts = [name, *LOOKS[look].words]
        if self.random.random() < NONSENSE:
            words = [f"{self.nonsense()} style", f"in {self.nonsense()} style", self.nonsense()]
            parts.insert(self.random.integers(len(parts) + 1), words[self.random.integers(len(words))])
        elif len(parts) > 1 and self.random.random() < 0.2:
            parts = [parts[i] for i in self.random.permutation(len(parts))]
        return ", ".join(parts)

    def nonsense(self) -> str:
        """A word made of syllables, letters and pieces of the vocabulary, sometimes with a number."""
        word = ""
        for _ in range(self.random.integers(1, 4)):
            roll = self.random.random()
            if roll < 0.4:
                word += self._one(_CONSONANTS) + self._one(_VOWELS)
            elif roll < 0.6:
                word += self._one(_CONSONANTS + _VOWELS)
            else:
                word += self._one(self.pieces)
        if self.random.random() < 0.1:
            word += str(self.random.integers(100))
        return word if word not in _words() else word + "x"

    def _one(self, choices: str | list[str]) -> str:
        return choices[self.random.integers(len(choices))]


def plain_caption(concept: int, look: str) -> str:
    """The caption that reports and sheets use: name, then the words of the look."""
    return ", ".join([all_concepts()[concept].name, *LOOKS[look].words])


def _words() -> dict[str, int]:
    """Every word a meaningful caption can hold, with how often the tokenizer's training counts it."""
    names = [concept.name for concept in all_concepts()]
    text = " ".join(names + [" ".join(look.words) for look in LOOKS.values()] + list(_FILLERS))
    return Counter(word for word in text.replace("-", " ").split())


def _merges(words: dict[str, int]) -> list[tuple[str, str]]:
    """Byte pair merges, most frequent pair first, until every word is one token."""
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        pairs = Counter()
        for word, parts in spelled.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = max(sorted(pairs), key=pairs.__getitem__)
        merges.append(best)
        spelled = {word: _apply(parts, best) for word, parts in spelled.items()}


def _apply(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged, i = [], 0
    while i < len(parts):
        hit = tuple(parts[i : i + 2]) == pair
        merged.append("".join(pair) if hit else parts[i])
        i += 2 if hit else 1
    return merged


def _merged(words: dict[str, int]) -> list[str]:
    return [(first + second).removesuffix("</w>") for first, second in _merges(words)]


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes that CLIP's vocabulary starts with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def save_tokenizer(folder: Path) -> CLIPTokenizer:
    """Make the tokenizer and write it both as vocab.json + merges.txt and in the newer form."""
    letters, merges = _byte_letters(), _merges(_words())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab, rules = folder / "vocab.json", folder / "merges.txt"
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    vocab.write_text(json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False), encoding="utf-8")
    rules.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokenizer
