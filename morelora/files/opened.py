"""An adapter file as adapters, without a model: layers have names and shapes, and weights only where a base model is at hand.

Where it is not, a weight is NaN: whatever depends on it comes out as NaN, and is refused with the way out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import Tensors
from morelora.errors import AdapterError, FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.shapes import family_of, site_of
from morelora.formats.container import read
from morelora.formats.embedding import WORD_KEY, is_embedding, take_bundled
from morelora.formats.reading import sort_keys, split
from morelora.formats.vocabulary import layer_names
from morelora.inject import AdapterSet
from morelora.load import adapter_from
from morelora.site import Site

SHOWN = 5
GIVE_BASE = "give the base model with --base"


class Outline(nn.Module):
    """A frozen layer of which the shape is known, and the weight where a base model is at hand: NaN where not."""

    def __init__(self, name: str, site: Site, base: Checkpoint | None = None) -> None:
        super().__init__()
        self.name, self.site, self._base = name, site, base

    @property
    def weight(self) -> Tensor:
        return _unknown(self.site.weight_shape) if self._base is None else self._base.weight(self.name)

    @property
    def bias(self) -> Tensor | None:
        if self._base is not None:
            return self._base.bias(self.name)
        return _unknown((self.site.m,)) if self.site.has_bias else None


def _unknown(shape: tuple[int, ...]) -> Tensor:
    return torch.tensor(torch.nan).expand(shape)


class Part(nn.Module):
    """A component of a model that is not there: what the names of its layers in files depend on."""

    def __init__(self, is_sdxl: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(addition_embed_type="text_time" if is_sdxl else None)


@dataclass
class Opened:
    """An adapter file."""

    path: Path
    metadata: dict[str, str]
    adapters: AdapterSet
    family: str
    dtype: torch.dtype
    """What most of its numbers are stored in."""
    words: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Embeddings that are bundled in it."""
    unread: list[str] = field(default_factory=list)
    """Keys, and layers with a reason, of which nothing could be made."""

    def whole(self) -> Opened:
        """Itself. Raises ``FormatError`` where a part of the file could not be read."""
        if self.unread:
            more = f" … and {len(self.unread) - SHOWN} more" if len(self.unread) > SHOWN else ""
            raise FormatError(f"{self.path}: {len(self.unread)} entries cannot be used: {'; '.join(self.unread[:SHOWN])}{more}")
        return self


def open_adapter(path: Path, base: Checkpoint | None = None, finite: bool = True) -> Opened:
    """Read a file.

    Args:
        path: a ``.safetensors`` file of any algorithm here, in any names that ``morelora.load`` takes.
        base: the model that it was made for, where shapes or weights are needed that it does not hold.
        finite: whether to refuse NaN and infinite values.

    Raises:
        FormatError: it is damaged, or no adapter.
    """
    path = Path(path)
    tensors, metadata = read(path, finite)
    if is_embedding(tensors):
        word = metadata.get(WORD_KEY) or path.stem
        raise FormatError(
            f"{path} is an embedding and no adapter: it teaches a word, {word!r}, for prompts. In diffusers it is put in by "
            f"morelora.load_embedding(pipe, {path.name!r}); in A1111, Forge and ComfyUI it lies in the folder embeddings, and a "
            f"prompt calls it by the file's name, {path.stem!r} (ComfyUI: {f'embedding:{path.stem}'!r})"
        )
    tensors, words = take_bundled(tensors)
    if not tensors:
        raise FormatError(f"{path} holds no tensors of an adapter")
    contents = sort_keys(tensors, metadata, base.layers if base else _names(tensors))
    family = base.family if base else family_of(metadata, contents.layers)
    unread, layers = list(contents.unknown), {}
    with torch.random.fork_rng(devices=[]):  # building one draws values that the file's then replace
        for name, leaves in contents.layers.items():
            try:
                layers[name] = _adapted(name, leaves, base, family)
            except AdapterError as error:
                unread.append(f"{name}: {error}")
    return Opened(path, metadata, adapter_set(layers, family), family, _dtype(tensors), words, unread)


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The precision of most numbers; of 8-bit ones, which nothing can be computed in, float16, which holds them exactly."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.numel()
    most = sizes.most_common(1)[0][0]
    return most if most.itemsize > 1 else torch.float16


def adapter_set(layers: Mapping[str, Adapted], family: str) -> AdapterSet:
    """Adapters of layers that stand in no model."""
    components = {name.partition(".")[0] for name in layers} | {"unet"}
    parts: dict[str, nn.Module] = {name: Part(family == "sdxl") for name in components}
    return AdapterSet(parts, dict(layers))


def _adapted(name: str, leaves: Tensors, base: Checkpoint | None, family: str) -> Adapted:
    site = base.layers[name] if base else site_of(name, leaves, family)
    if site is None:
        raise AdapterError(f"{', '.join(sorted(leaves))} do not tell the layer's shape: {GIVE_BASE}")
    if 0 in site.weight_shape:
        raise AdapterError("its tensors are empty: the file is damaged")
    outline = Outline(name, site, base)
    adapter = adapter_from(outline, {leaf: tensor.float() for leaf, tensor in leaves.items()})
    return Adapted(outline, adapter.eval())


def _names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Every layer that a Stable Diffusion model has, and those that the file names with their dots."""
    known = layer_names()
    dotted = {spelling for spelling, leaf in map(split, tensors) if leaf and spelling.startswith(("unet.", "text_encoder"))}
    return [*known, *sorted(dotted - set(known) - {name.replace(".text_model.", ".") for name in known})]


@torch.no_grad()
def change_of(layer: Adapted) -> Tensor:
    """``W' - W`` in float32, of the weight's shape. Raises ``FormatError`` where it depends on a weight that is not there."""
    factors = layer.adapter.factors()
    if factors is not None:
        return (factors[0] @ factors[1]).view(layer.site.weight_shape)
    return known(layer, layer.adapter.delta(layer.base.weight))


@torch.no_grad()
def shift_of(layer: Adapted) -> Tensor | None:
    """``b' - b``, if the bias changes. Raises as ``change_of``."""
    shift = layer.adapter.bias_delta(layer.base.bias)
    return None if shift is None else known(layer, shift)


def known(layer: Adapted, tensor: Tensor) -> Tensor:
    """``tensor``, if it depends on nothing that is not known."""
    if not torch.isfinite(tensor).all():
        raise FormatError(f"{layer.base.name}: the change of {layer.adapter.name} depends on the base's weights: {GIVE_BASE}")
    return tensor.detach()
