"""Load an embedding file back through every reader that is installed and compare the states that a prompt with its word gets.

``error = max over text encoders of ||states_reader - states|| / ||states||``, on the base model without adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morelora import AdapterSet, EmbeddingSet, attach_vectors, load_embedding
from morelora.formats.container import read
from morelora.formats.embedding import decode
from trainer.errors import TrainerError
from trainer.events import Verified
from trainer.verify import LIMITS, installed, quiet, relative_error, twins

CALLED = "<learnt>"
"""What the word is called in the check: a word that no vocabulary has."""
PROMPT = f"a picture, {CALLED}"
OURS = "morelora"


def verify_word(words: EmbeddingSet, path: Path, adapters: AdapterSet, encoders: Mapping[str, nn.Module]) -> list[Verified]:
    """One verdict for each installed reader.

    Args:
        words: the vectors that were exported, in place in ``encoders``. Nothing of them is changed.
        path: the file.
        adapters: what else stands in the encoders.
        encoders: the text encoders by name.

    Raises:
        TrainerError: our own reader does not give back what was learnt.
    """
    limit = max(LIMITS[layer.weight.dtype] for layer in words.layers.values())
    with torch.no_grad(), quiet():
        pipe = twins(adapters, encoders, words)
        parts = {name: pipe[name] for name in encoders}
        attach_vectors(parts, {name: pipe[_tokenizer(name)] for name in encoders}, CALLED, words.vectors())
        expected = _states(pipe, list(encoders), PROMPT)
        return [_judge(reader, path, twins(adapters, encoders, words), expected, limit) for reader in installed(NEEDS)]


def _judge(reader: str, path: Path, pipe: dict[str, Any], expected: dict[str, Tensor], limit: float) -> Verified:
    try:
        found = _states(pipe, list(expected), READERS[reader](pipe, path))
    except Exception as error:  # other programs raise anything on files they cannot read
        if reader == OURS:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return Verified(reader, 0, None, f"cannot read the word: {reason}")
    largest = max(relative_error(found[name], expected[name], 0.0) for name in expected)
    if largest <= limit:
        return Verified(reader, len(expected), largest, f"gives the word the same meaning: relative error at most {largest:.2g}")
    message = f"gives the word another meaning: relative error {largest:.2g}, expected at most {limit:g}"
    if reader == OURS:
        raise TrainerError(
            f"{path} does not give back what was learnt: {OURS} {message}",
            "the last checkpoint is whole; export it again, and report this with the run's train.log",
        )
    return Verified(reader, len(expected), largest, message)


def _states(pipe: Mapping[str, Any], encoders: list[str], prompts: str | dict[str, str]) -> dict[str, Tensor]:
    """The last hidden states of the prompt, by text encoder."""
    found = {}
    for name in encoders:
        prompt = prompts if isinstance(prompts, str) else prompts[name]
        ids = pipe[_tokenizer(name)](prompt, return_tensors="pt").input_ids
        found[name] = pipe[name](ids.to(pipe[name].device)).last_hidden_state.float()
    return found


def _with_morelora(pipe: dict[str, Any], path: Path) -> str:
    load_embedding(pipe, path, CALLED)
    return PROMPT


def _with_diffusers(pipe: dict[str, Any], path: Path) -> dict[str, str]:
    """As diffusers documents it: one tensor of the file for each text encoder."""
    from diffusers.loaders import TextualInversionLoaderMixin

    class Loader(TextualInversionLoaderMixin):
        hf_device_map = None
        components: dict[str, Any] = {}

    prompts = {}
    for name, vectors in decode(read(path)[0]).items():
        tokenizer = pipe[_tokenizer(name)]
        Loader().load_textual_inversion(vectors, token=CALLED, tokenizer=tokenizer, text_encoder=pipe[name])
        prompts[name] = Loader().maybe_convert_prompt(PROMPT, tokenizer)
    return prompts


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


NEEDS: dict[str, tuple[str, ...]] = {OURS: (), "diffusers": ("diffusers",)}
READERS: dict[str, Callable[[dict[str, Any], Path], str | dict[str, str]]] = {
    OURS: _with_morelora,
    "diffusers": _with_diffusers,
}
