"""Begin a training with the values of a finished adapter file, ours or another program's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from morelora.adapter import Adapter
from morelora.errors import AdapterError, FormatError
from morelora.formats.container import read
from morelora.formats.embedding import take_bundled
from morelora.formats.reading import sort_keys
from morelora.inject import AdapterSet
from morelora.load import adapter_from
from morelora.targets import adaptable_layers
from morelora.weight_decompose import WeightDecomposed

SHOWN = 5


def start_from(adapters: AdapterSet, path: str | PathLike[str]) -> None:
    """Give the adapters the values of a file that holds the same: same layers, algorithms and shapes. Their change of the
    weights is then the file's; where its alpha is another, the factor that carries the scale is rescaled.

    Raises:
        FormatError: the file cannot be read, or holds another adapter than this one; the message names the differences.
    """
    path = Path(path)
    tensors, metadata = read(path)
    tensors, words = take_bundled(tensors)
    contents = sort_keys(tensors, metadata, adaptable_layers(adapters.models))
    with torch.random.fork_rng(devices=[]):  # building one draws values that the file's then replace
        theirs = {name: _adapter(adapters, name, held) for name, held in contents.layers.items() if name in adapters.layers}
    differences = [f"{key} is not trained here" for key in contents.unknown]
    differences += [f"{name} is not trained here" for name in contents.layers if name not in adapters.layers]
    differences += [f"the embedding {word!r} is not trained here" for word in words]
    differences += [text for name, own in adapters for text in _differences(name, own.current, theirs)]
    if differences:
        more = f" … and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise FormatError(f"{path} holds another adapter: {'; '.join(differences[:SHOWN])}{more}")
    for name, own in adapters:
        _copy(own.current, theirs[name])


def _adapter(adapters: AdapterSet, name: str, tensors: dict[str, Tensor]) -> Adapter | str:
    """The file's adapter of one layer, or why there is none."""
    try:
        return adapter_from(adapters.layers[name].base, tensors)
    except AdapterError as error:
        return str(error)


def _differences(name: str, own: Adapter, theirs: Mapping[str, Adapter | str]) -> Iterator[str]:
    """What keeps the file's values from fitting one layer."""
    found = theirs.get(name)
    if found is None or isinstance(found, str):
        yield f"{name}: {found or 'is not in the file'}"
    elif _kind(found) != _kind(own):
        yield f"{name}: {_kind(found)} in the file, {_kind(own)} here"
    else:
        shapes, mine = ({leaf: tuple(p.shape) for leaf, p in a.named_parameters()} for a in (found, own))
        leaves = [leaf for leaf in shapes.keys() | mine.keys() if shapes.get(leaf) != mine.get(leaf)]
        yield from (f"{name}.{leaf}: {shapes.get(leaf)} in the file, {mine.get(leaf)} here" for leaf in sorted(leaves)[:1])


def _kind(adapter: Adapter) -> str:
    frozen = " with frozen factors of its own" if any(True for _ in adapter.buffers()) else ""
    axis = f" with weight decomposition ({adapter.axis})" if isinstance(adapter, WeightDecomposed) else ""
    return f"{adapter.name}{frozen}{axis}"


@torch.no_grad()
def _copy(own: Adapter, theirs: Adapter) -> None:
    values = dict(theirs.named_parameters())
    for leaf, parameter in own.named_parameters():
        parameter.copy_(values[leaf])
    own.rescale(theirs.plain.scale / own.plain.scale)
