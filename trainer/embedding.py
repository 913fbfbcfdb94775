"""The word of a run: where its vectors start, when they rest, how long they may grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from morelora import AdapterError, EmbeddingSet, attach_vectors
from trainer import rng
from trainer.config import Config, EmbeddingConfig
from trainer.config.embedding import stands_in
from trainer.data import Dataset
from trainer.errors import InputError
from trainer.models import Bundle

START = 7
"""Key of the generator that the vectors start from."""


class Word:
    """The vectors of a run's word, and what the settings want of them.

    After each step a vector ``v`` of norm ``n`` becomes ``v (1 + p (m / n - 1))``, with ``p = embedding.norm_pull`` and the mean
    norm ``m`` of the known vectors.
    """

    def __init__(self, vectors: EmbeddingSet, config: Config) -> None:
        self.vectors = vectors
        self.config = config.embedding
        self.last_step = max(1, round(config.embedding.freeze_after * config.train.steps))
        self.norms = {name: layer.weight.float().norm(dim=1).mean() for name, layer in vectors.layers.items()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The vectors that still train."""
        return ((name, parameter) for name, parameter in self.vectors.named_parameters() if parameter.requires_grad)

    def rest(self, step: int) -> None:
        """Before the step that follows ``step``: freeze the vectors where their share of the run is over."""
        for parameter in self.vectors.parameters():
            parameter.requires_grad_(step < self.last_step)

    def group(self) -> dict[str, Any]:
        """The optimiser's group of the vectors."""
        return {"params": self.vectors.parameters(), "lr": self.config.lr, "weight_decay": self.config.weight_decay}

    @torch.no_grad()
    def pull(self) -> None:
        """After a step: draw the vectors' norms to the mean of the known ones."""
        if not self.config.norm_pull:
            return
        for name, layer in self.vectors.layers.items():
            if layer.vectors.requires_grad:
                norms = layer.vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
                layer.vectors.mul_(1 + self.config.norm_pull * (self.norms[name] / norms - 1))

    def notes(self, dataset: Dataset, alone: bool) -> Iterable[str]:
        """What the plan says of the word."""
        items = [item for item in dataset.items if not item.regularization]
        without = [item for item in items if not stands_in(self.vectors.word, item.caption)]
        if without:
            name = without[0].path.name
            yield f"{len(without)} of {len(items)} captions lack {self.vectors.word!r}, so that it learns nothing from {name}"
        if alone:
            yield "Only the word is trained, at embedding.lr: no adapter file is written, and adapter.* and optimizer.lr rest."
        elif self.config.freeze_after < 1:
            yield f"The word's vectors rest after step {self.last_step}; from there only the adapter learns."
        if self.config.bundle:
            yield "embedding.bundle: diffusers refuses this adapter file; only A1111 and morelora take the word from it"


def add_word(config: Config, bundle: Bundle) -> Word | None:
    """The word of ``config.embedding`` in every text encoder; None where none is trained.

    Raises:
        InputError: as ``init_rows``, or the word cannot be taught to a tokenizer.
    """
    if not config.embedding.vectors:
        return None
    generator = rng.generator_for(config.train.seed, START)
    tokenizers, rows = tokenizers_of(bundle), init_rows(config.embedding, bundle)
    start = {
        name: starting_vectors(encoder.get_input_embeddings().weight, rows[name], config.embedding.vectors, generator)
        for name, encoder in bundle.text_encoders.items()
    }
    word = config.embedding.token or config.data.trigger
    try:
        vectors = attach_vectors(bundle.text_encoders, tokenizers, " ".join(word.split()), start)
    except AdapterError as error:
        raise InputError(f"the word of embedding.token or data.trigger does not work: {error}", "choose another word") from error
    for part in (bundle.unet, *bundle.text_encoders.values()):
        part.train()  # gradients run through both, and checkpointing them needs this
    return Word(vectors, config)


def tokenizers_of(bundle: Bundle) -> dict[str, Any]:
    """The tokenizers by text encoder."""
    return {name: getattr(bundle.pipeline, name.replace("text_encoder", "tokenizer")) for name in bundle.text_encoders}


def init_rows(config: EmbeddingConfig, bundle: Bundle) -> dict[str, list[int]]:
    """The ids of ``embedding.init``'s words in each text encoder's vocabulary.

    Raises:
        InputError: a word is not one token there, or there are more words than vectors.
    """
    words = config.init.split()
    if len(words) > config.vectors > 0:
        raise InputError(
            f"embedding.init has {len(words)} words, but embedding.vectors = {config.vectors}",
            f"set embedding.vectors = {len(words)}, or name fewer words",
        )
    return {name: [_known(tokenizer, word) for word in words] for name, tokenizer in tokenizers_of(bundle).items()}


def starting_vectors(table: Tensor, rows: list[int], count: int, generator: Generator) -> Tensor:
    """``(count, d)``: the table's ``rows`` in turn; without any, normal draws with the mean and spread of each of its columns."""
    known = table.detach().float().cpu()
    if rows:
        return known[[rows[i % len(rows)] for i in range(count)]]
    return known.mean(dim=0) + known.std(dim=0) * torch.randn(count, known.shape[1], generator=generator)


def _known(tokenizer: Any, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] in tokenizer.all_special_ids:
        pieces = [tokenizer.decode([i]).strip() for i in ids if i not in tokenizer.all_special_ids]
        what = f"it is read as {' + '.join(pieces)}" if pieces else "it is not read at all"
        raise InputError(
            f"embedding.init: {word!r} is no word of this text encoder's vocabulary; {what}",
            "name words that are, such as common nouns, or leave embedding.init empty to start at random",
        )
    return int(ids[0])
