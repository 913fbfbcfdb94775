"""Write the adapter file that users give to their programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from morelora import AdapterSet, EmbeddingSet
from morelora.errors import FormatError, NonFiniteTensorError
from morelora.formats import Encoded, rehearse
from morelora.formats import encode as encode_adapters
from morelora.formats.container import write
from morelora.formats.embedding import bundled, encode
from morelora.formats.names import TEXT_ENCODERS
from morelora.formats.precision import cast
from morelora.formats.sidecar import notice
from morelora.lowrank import Cut
from morelora.site import NormSite
from morelora.weight_decompose import WeightDecomposed
from trainer.config import ExportConfig
from trainer.config.output import WEB_UIS
from trainer.errors import DiskError, InputError, NonFiniteError
from trainer.metadata import Provenance, embedding_metadata, metadata

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


SVD_RANK = 32


def export(adapters: AdapterSet, path: Path, provenance: Provenance, words: EmbeddingSet | None = None) -> Path:
    """Write ``adapters`` to ``path`` in the form and precision of ``provenance.config.export``; whole or not at all.

    Args:
        adapters: the trained adapters (with the averaged values put in, where they are to be exported).
        path: the file, usually ``RunDir.export_file``.
        provenance: what the metadata tells.
        words: vectors that are to go into the same file.

    Returns:
        ``path``.

    Raises:
        NonFiniteError: a tensor is NaN or infinite, in float32 or after the cast.
        InputError: the form cannot hold these adapters; the message names the way out.
        DiskError: the file cannot be written.
    """
    settings = provenance.config.export
    with _told(settings):
        cut = Cut(settings.svd_rank or SVD_RANK)
        encoded = encode_adapters(adapters, settings.format, settings.readers or WEB_UIS, cut)
    tensors = _finite(encoded.tensors, DTYPES[settings.dtype])
    if words is not None:
        tensors |= _finite(bundled(words.word, words.vectors()), torch.float32)
    _write(path, tensors, metadata(adapters, provenance, path.stem, encoded))
    return path


def export_embedding(words: EmbeddingSet, path: Path, provenance: Provenance) -> Path:
    """Write a word's vectors to a file of their own, in float32; returns ``path``. Raises as ``export``."""
    _write(path, _finite(encode(words.vectors()), torch.float32), embedding_metadata(words, provenance, path.stem))
    return path


def _write(path: Path, tensors: dict[str, Tensor], entries: dict[str, str]) -> None:
    try:
        write(path, tensors, entries)
    except OSError as error:
        raise DiskError.of(error, path, "The last checkpoint holds everything that was learnt.") from error


def check(adapters: AdapterSet, settings: ExportConfig) -> list[str]:
    """Whether the form can hold these adapters, asked before the training and not after it.

    Returns:
        What the user should know about the programs that will read the file; one sentence each.

    Raises:
        InputError: as ``export``.
    """
    if not len(adapters):
        return []
    with _told(settings):
        encoded = rehearse(adapters, settings.format, settings.readers or WEB_UIS)
    _finite(encoded.tensors, DTYPES[settings.dtype])
    return list(_consequences(adapters, encoded))


@contextmanager
def _told(settings: ExportConfig) -> Iterator[None]:
    """A form that cannot hold the adapters as an error of the settings."""
    try:
        yield
    except NonFiniteTensorError as error:
        raise _diverged(error) from error
    except FormatError as error:
        raise InputError(f"export.format = {settings.format!r} cannot hold this adapter: {error}") from error


def _finite(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors in the file's precision."""
    try:
        return cast(tensors, dtype)
    except NonFiniteTensorError as error:
        raise _diverged(error) from error


def _diverged(error: NonFiniteTensorError) -> NonFiniteError:
    return NonFiniteError(
        f"the file is not written: {error}",
        fix="lower optimizer.lr (a word's: embedding.lr) and start again from an earlier checkpoint",
        safe="Files written before are as they were.",
    )


def _consequences(adapters: AdapterSet, encoded: Encoded) -> Iterator[str]:
    """See docs/formats.md, which has the table of programs."""
    names = {adapter.filed_as for _, adapter in adapters}
    axes = {adapter.axis for _, adapter in adapters if isinstance(adapter, WeightDecomposed)}
    if encoded.reason:
        yield f"export.format = 'auto' writes the form '{encoded.form}': {encoded.reason}"
    if encoded.form == "svd":
        yield "the form 'svd' is approximate: its error is measured and told when the file is written"
    if encoded.form == "diff":
        yield "the form 'diff' is as large as the layers; diffusers does not read it"
    if encoded.form == "diffusers":
        yield "export.format = 'diffusers': only diffusers pipelines and morelora read this file, web UIs do not"
    if encoded.form == "sidecar":
        yield f"export.format = 'sidecar' writes a {notice(encoded.tensors)}"
    if encoded.form == "webui" and names != {"lora"}:
        yield "diffusers' load_lora_weights reads LoRA only: export.format = 'lora' is for it, where it is exact"
    if encoded.form == "webui" and any(getattr(adapter.options, "tucker", False) for _, adapter in adapters):
        yield "diffusers refuses Tucker factors: export.format = 'lora' folds them in"
    if encoded.form == "webui" and axes:
        yield "diffusers drops the magnitudes of DoRA from a web-UI file: load it with morelora there"
    if encoded.form == "webui" and "output" in axes:
        yield "web UIs misread DoRA along the output axis without an error: adapter.decompose_axis = 'input' is for them"
    yield from _narrow(adapters, encoded)
    if encoded.form == "webui" and axes and names != {"lora"}:
        yield "InvokeAI refuses DoRA over LoHa or LoKr"
    if any(name.startswith(TEXT_ENCODERS[1]) and layer.changes_bias for name, layer in adapters.layers.items()):
        yield "A1111 loses the biases of the second text encoder's q, k and v: leave its biases alone, or train without it"
    text = [name for name in adapters.layers if name.partition(".")[0] in TEXT_ENCODERS]
    if encoded.form != "diffusers" and text and not any(name.endswith("out_proj") for name in text):
        yield "diffusers misreads a text encoder without out_proj adapters: leave no rule that takes them out"


def _narrow(adapters: AdapterSet, encoded: Encoded) -> Iterator[str]:
    """What few programs read, or read in another form than it was trained in."""
    names = {adapter.name for _, adapter in adapters}
    if encoded.form != "webui":
        return
    if names & {"oft", "boft"}:
        yield "LyCORIS, A1111 and ComfyUI read oft and boft; Forge and InvokeAI do not"
    if "bitfit" in names:
        yield "InvokeAI refuses a file of biases alone; ComfyUI loads it with one warning a layer and loses nothing"
    if "ssf" in names or any(adapter.name == "ia3" and not adapter.options.on_input for _, adapter in adapters):
        yield "scales of outputs are written as dense differences, as large as the weights"
    if "krona_res" in names:
        yield "krona_res is written as dense differences, as large as the weights: it is no LoKr"
    norms = [name for name, layer in adapters.layers.items() if isinstance(layer.site, NormSite)]
    if any(name.partition(".")[0] in TEXT_ENCODERS for name in norms):
        yield "ComfyUI and Forge do not read norms of text encoders: leave no rule that names them"
