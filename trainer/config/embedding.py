"""Settings of textual inversion: a word with vectors of its own in the text encoder."""

from __future__ import annotations

import re

from trainer.config.base import Section, setting


class EmbeddingConfig(Section):
    """A word of its own (textual inversion), alone or together with an adapter (pivotal tuning)."""

    vectors: int = setting(
        0, "Vectors that the word gets in each text encoder; 0 means that no word is trained.", unit="tokens", ge=0, le=75
    )
    token: str = setting("", "The word; it must stand in data.trigger, which puts it into captions. Empty: data.trigger itself.")
    init: str = setting("", "Known words that the vectors start from, in turn; empty means random, spread as the known ones are.")
    lr: float = setting(1e-3, "Learning rate of the vectors.", gt=0, le=10)
    weight_decay: float = setting(0.0, "Decoupled weight decay of the vectors.", ge=0, le=1)
    freeze_after: float = setting(1.0, "Share of the run after which the vectors rest and only the adapter learns.", gt=0, le=1)
    norm_pull: float = setting(
        0.0, "Share by which each step draws a vector's length to the mean length of the known ones.", ge=0, le=1
    )
    bundle: bool = setting(False, "Also put the word into the adapter's file; diffusers' own loader then refuses that file.")


def stands_in(word: str, text: str) -> bool:
    """Whether a word stands in a text by itself, in capitals or not, with any space where it has one."""
    words = r"\s+".join(re.escape(part) for part in word.split())
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None
