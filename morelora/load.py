"""Put an adapter file, ours or another program's, into a pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from morelora.adapter import Adapter, Tensors
from morelora.dimensions import check_dimensions
from morelora.embedding import EmbeddingSet, attach_vectors
from morelora.errors import AdapterError, FormatError, UnreadTensorsWarning
from morelora.formats.container import read
from morelora.formats.embedding import WORD_KEY, decode, is_embedding, take_bundled
from morelora.formats.names import TEXT_ENCODERS
from morelora.formats.reading import sort_keys
from morelora.inject import AdapterSet, attach
from morelora.registry import ALGORITHMS
from morelora.residual import START, Residual
from morelora.site import Site
from morelora.targets import adaptable_layers
from morelora.weight_decompose import WeightDecomposed

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
FOLDED = frozenset({"lokr_t2"})
"""Leaf names that an algorithm reads but never writes."""
SHOWN = 8


def load(pipe: Any, path: str | PathLike[str], strength: float = 1.0, strict: bool = True) -> AdapterSet:
    """Adapt a pipeline's models with a file; ``AdapterSet.remove`` takes it out again, bit for bit.

    Embeddings that are bundled in the file are given to the text encoders under their names (``AdapterSet.embeddings``).

    Args:
        pipe: an object with ``unet``, ``text_encoder``, ``text_encoder_2`` (any of them), or a mapping with these keys; for
            bundled embeddings with ``tokenizer``, ``tokenizer_2`` too.
        path: a ``.safetensors`` file of any algorithm here, in kohya's, LyCORIS' or diffusers' key names.
        strength: ``t`` in ``W + t (W' - W)``.
        strict: raise where the file holds a tensor that this pipeline or this package has no place for. Off: warn with
            ``UnreadTensorsWarning``, which lists them all.

    Raises:
        FormatError: the file cannot be read, fits no layer at all, or (strict) not wholly.
    """
    path = Path(path)
    models = components(pipe)
    layers = adaptable_layers(models)
    tensors, metadata = read(path)
    if is_embedding(tensors):
        raise FormatError(f"{path} is an embedding and no adapter: use morelora.load_embedding(pipe, path, word)")
    tensors, words = take_bundled(tensors)
    contents = sort_keys(tensors, metadata, layers)
    # Building an adapter draws start values that the file's then replace: the caller's random numbers stay untouched.
    with torch.random.fork_rng(devices=[]):
        adapters, unread = _build(contents.layers, layers)
    embeddings, without = _attach_words(pipe, models, words)
    unread = contents.unknown + unread + without
    if unread and (strict or not adapters):
        for embedding in reversed(embeddings):
            embedding.remove()
        raise FormatError(f"{path}: {_listed(unread, len(tensors))}. {_advice(bool(adapters))}")
    if not adapters:
        raise FormatError(f"{path} holds no tensors: it is no adapter")
    if unread:
        warnings.warn(UnreadTensorsWarning(f"{path}: {', '.join(unread)}", unread), stacklevel=2)
    loaded = attach(models, adapters)
    loaded.strength = strength
    loaded.embeddings = embeddings
    for parameter in loaded.parameters():
        parameter.requires_grad_(False)
    return loaded


def load_embedding(pipe: Any, path: str | PathLike[str], word: str | None = None) -> EmbeddingSet:
    """Give a word of its own to a pipeline's text encoders; ``EmbeddingSet.remove`` takes it out again, bit for bit.

    Args:
        pipe: an object with ``text_encoder`` and ``tokenizer`` (and ``text_encoder_2``, ``tokenizer_2``), or a mapping.
        path: a ``.safetensors`` file in the form of A1111, ComfyUI, InvokeAI or diffusers.
        word: what prompts call it; default: the word that the file names, else the file's name.

    Raises:
        FormatError: the file cannot be read, or is no embedding.
        AdapterError: it does not fit these text encoders.
    """
    path = Path(path)
    tensors, metadata = read(path)
    return _attach_word(pipe, components(pipe), word or metadata.get(WORD_KEY) or path.stem, decode(tensors))


def components(pipe: Any) -> dict[str, nn.Module]:
    """The models of a pipeline or mapping that adapters go into. Raises ``AdapterError`` where there are none."""
    found = {name: model for name in COMPONENTS if isinstance(model := _part(pipe, name), nn.Module)}
    if not found:
        raise AdapterError(f"{type(pipe).__name__} has none of {', '.join(COMPONENTS)}: give a diffusers pipeline")
    return found


def adapter_from(layer: Any, tensors: Tensors) -> Adapter:
    """The adapter that a layer's tensors in a file describe; the algorithm is told by the leaf names.

    Raises:
        AdapterError: no algorithm or more than one has these names, or the shapes do not fit the layer.
    """
    check_dimensions(tensors)
    if any(leaf.startswith(START) for leaf in tensors):
        adapter: Adapter = Residual.read(tensors, lambda own: _undecomposed(layer, own))
    else:
        adapter = _undecomposed(layer, tensors)
    if "dora_scale" not in tensors:
        return adapter
    return WeightDecomposed.around(adapter, layer.weight, tensors["dora_scale"])


def _undecomposed(layer: Any, tensors: Tensors) -> Adapter:
    """As ``adapter_from``, of a module without magnitudes or a start."""
    fitting = [algorithm for algorithm in ALGORITHMS.values() if algorithm.reads(tensors)]
    if len(fitting) != 1:
        what = " and ".join(algorithm.name for algorithm in fitting) or "no known algorithm"
        raise AdapterError(f"{', '.join(sorted(tensors))} belong to {what}")
    site = Site.of(layer)
    if not fitting[0].suits(site):
        raise AdapterError(f"{fitting[0].name} does not fit a layer of this kind")
    try:
        return fitting[0].from_tensors(site, tensors)
    except ValidationError as error:  # a rank of 0, a negative alpha: what no settings could have made
        fault = error.errors()[0]
        value = f"{fault['loc'][0]} = {fault['input']!r}" if fault["loc"] else "its shapes"
        raise AdapterError(f"{fitting[0].name} with {value} is not read here: {fault['msg']}") from error


def _part(pipe: Any, name: str) -> Any:
    return pipe.get(name) if isinstance(pipe, Mapping) else getattr(pipe, name, None)


def _attach_word(pipe: Any, models: Mapping[str, nn.Module], word: str, vectors: Mapping[str, Tensor]) -> EmbeddingSet:
    encoders = {name: model for name, model in models.items() if name in TEXT_ENCODERS}
    tokenizers = {name: _part(pipe, name.replace("text_encoder", "tokenizer")) for name in encoders}
    made = attach_vectors(encoders, tokenizers, word, vectors)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made


def _attach_words(
    pipe: Any, models: Mapping[str, nn.Module], words: Mapping[str, Mapping[str, Tensor]]
) -> tuple[list[EmbeddingSet], list[str]]:
    """A file's bundled embeddings in place, and those that could not be used, with the reason."""
    made, unread = [], []
    for word, vectors in words.items():
        try:
            made.append(_attach_word(pipe, models, word, vectors))
        except AdapterError as error:
            unread.append(f"the embedding {error}")
    return made, unread


def _build(contents: Mapping[str, Tensors], layers: Mapping[str, nn.Module]) -> tuple[dict[str, Adapter], list[str]]:
    """Adapters in the model's order, and what of the file could not be used, with the reason."""
    adapters, unread = {}, []
    for name, layer in layers.items():
        if name not in contents:
            continue
        tensors = contents[name]
        try:
            adapter = adapter_from(layer, tensors)
        except AdapterError as error:
            unread.append(f"{name}: {error}")
            continue
        adapters[name] = adapter
        known = adapter.tensors(1.0).keys() | FOLDED | {"alpha"}
        unread += [f"{name}: {leaf} is not part of {adapter.name}" for leaf in sorted(tensors.keys() - known)]
    return adapters, unread


def _listed(unread: Iterable[str], total: int) -> str:
    unread = list(unread)
    more = f" … and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    return f"{len(unread)} entries of {total} tensors cannot be used: {'; '.join(unread[:SHOWN])}{more}"


def _advice(some_fit: bool) -> str:
    if some_fit:
        return "The file was made for another model or holds more than adapters: use strict=False to load the rest"
    return "Nothing in it fits this model: it was made for another family, or it is no adapter"
