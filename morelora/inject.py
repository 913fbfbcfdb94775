"""Put adapters into a model, take them out again, and hold them together: ``inject`` and ``AdapterSet``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import Generator, Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.embedding import EmbeddingSet
from morelora.errors import AdapterError
from morelora.registry import ALGORITHMS
from morelora.residual import started
from morelora.shared import Shared, once
from morelora.site import Site
from morelora.state import copy_state
from morelora.targets import Target
from morelora.weight_decompose import WeightDecomposed


def build(target: Target, layer: nn.Module, generator: Generator | None = None) -> Adapter:
    """A fresh adapter for one layer. Raises ``AdapterError`` naming the layer where algorithm and layer do not fit."""
    try:
        adapter = ALGORITHMS[target.algorithm](Site.of(layer), target.options, generator)
        adapter.meet(layer.weight)
        adapter = started(adapter, layer.weight, generator)
        return WeightDecomposed(adapter, layer.weight, target.decompose) if target.decompose else adapter
    except AdapterError as error:
        raise AdapterError(f"{target.name}: {error}") from error


def inject(models: Mapping[str, nn.Module], targets: Iterable[Target], generator: Generator | None = None) -> AdapterSet:
    """Adapt the targets' layers in place; every other parameter of the models is left as it is.

    Args:
        models: components by name, as in ``resolve``.
        targets: what gets which adapter.
        generator: a CPU generator for the start of the factors.
    """
    shared, adapters = Shared(), {}
    for target in targets:
        layer = models[target.component].get_submodule(target.path)
        made = build(target, layer, generator).to(_device(layer))
        adapters[target.name] = shared.join(made, replace(target, name=target.component))
    return attach(models, adapters)


def attach(models: Mapping[str, nn.Module], adapters: Mapping[str, Adapter]) -> AdapterSet:
    """Put ready adapters, by dotted layer name, into the models: each upon those that are there, but changes of weights below
    what acts beside the weights, so that it sees the changed layer whichever came first."""
    layers = {}
    for name, adapter in adapters.items():
        parent, leaf = _place(models, name, adapter)
        layer = getattr(parent, leaf)
        layers[name] = Adapted(layer, adapter.to(_device(layer))).train(layer.training)
        setattr(parent, leaf, layers[name])
    return AdapterSet(models, layers)


def _device(layer: nn.Module) -> torch.device:
    return next(chain(layer.parameters(), layer.buffers())).device


def _place(models: Mapping[str, nn.Module], name: str, adapter: Adapter) -> tuple[nn.Module, str]:
    """The module and the attribute of it that the adapter is to stand in."""
    component, _, path = name.partition(".")
    parent, leaf = _parent(models[component], path)
    while adapter.mergeable and isinstance(found := getattr(parent, leaf), Adapted) and not found.adapter.mergeable:
        parent, leaf = found, "base"
    return parent, leaf


def _parent(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, leaf = path.rpartition(".")
    return model.get_submodule(parent), leaf


def _adapted(models: Mapping[str, nn.Module], name: str) -> Adapted:
    component, _, path = name.partition(".")
    return models[component].get_submodule(path)


class AdapterSet:
    """The adapters of one run or one file, by dotted layer name, in the model's order."""

    def __init__(self, models: Mapping[str, nn.Module], layers: dict[str, Adapted]) -> None:
        self.models = dict(models)
        self.layers = layers
        self.embeddings: list[EmbeddingSet] = []
        """Words that came in the same file."""

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[str, Adapter]]:
        return ((name, layer.adapter) for name, layer in self.layers.items())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trainable tensors as ``<layer name>.<parameter>``; what layers share comes once, with the first of them."""
        return once((f"{name}.{leaf}", parameter) for name, adapter in self for leaf, parameter in adapter.named_parameters())

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def by_layer(self) -> dict[str, list[nn.Parameter]]:
        """The trainable tensors of each layer; what layers share is the first one's."""
        found: dict[str, list[nn.Parameter]] = {name: [] for name in self.layers}
        for name, parameter in once((name, parameter) for name, adapter in self for parameter in adapter.parameters()):
            found[name].append(parameter)
        return found

    @property
    def strength(self) -> float:
        """``t`` in ``W + t (W' - W)``; 0 is the base model bit for bit, and 1 is what a set without layers has."""
        return next((layer.strength for layer in self.layers.values()), 1.0)

    @strength.setter
    def strength(self, value: float) -> None:
        for layer in self.layers.values():
            layer.strength = float(value)

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """Inside, the adapters act with this strength."""
        before, self.strength = self.strength, strength
        try:
            yield
        finally:
            self.strength = before

    def deltas(self) -> Iterator[tuple[str, Tensor]]:
        """Each layer's full change ``W' - W`` in float32, without gradients."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                yield name, layer.adapter.delta(layer.base.weight.float())

    def state(self) -> dict[str, Tensor]:
        """The tensors as they are, trainable and frozen, for checkpoints; what layers share once."""
        held = ((name, adapter.state_dict(keep_vars=True)) for name, adapter in self)
        named = once((f"{name}.{leaf}", tensor) for name, tensors in held for leaf, tensor in tensors.items())
        return {name: tensor.detach() for name, tensor in named}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave. Raises ``AdapterError`` naming the tensors that are missing, left over or misshapen."""
        copy_state(self.state(), state, "these adapters")

    def limit_norm(self, maximum: float) -> None:
        """Max-norm on every layer."""
        for _, adapter in self:
            adapter.limit_norm(maximum)

    def merge(self) -> None:
        """Write the change, at the present strength, into the models' weights. Raises ``AdapterError`` before it touches any."""
        for name, layer in self.layers.items():
            try:
                layer.check_merge()
            except AdapterError as error:
                raise AdapterError(f"{name}: {error}") from error
        for layer in self.layers.values():
            layer.merge()

    def unmerge(self) -> None:
        """Undo ``merge`` bit for bit.

        Raises:
            AdapterError: an adapter that came later is merged on top, and would be lost.
        """
        for name, layer in self.layers.items():
            if layer.is_merged and any(outer.is_merged for outer in self._outer(name)):
                raise AdapterError(f"{name}: an adapter that was added later is merged on top: unmerge that one first")
        for layer in self.layers.values():
            layer.unmerge()

    def _outer(self, name: str) -> Iterator[Adapted]:
        """The adapted layers that stand around this set's own, outermost first."""
        outer = _adapted(self.models, name)
        while outer is not self.layers[name]:
            yield outer
            outer = outer.base

    def remove(self) -> None:
        """Take the adapters, and words of the same file, out of the models, which are then as before, bit for bit."""
        self.unmerge()
        while self.embeddings:
            self.embeddings[-1].remove()
            self.embeddings.pop()
        for name, layer in self.layers.items():
            component, _, path = name.partition(".")
            parent, leaf = _parent(self.models[component], path)
            while getattr(parent, leaf) is not layer:
                parent, leaf = getattr(parent, leaf), "base"
            setattr(parent, leaf, layer.base)
            layer.adapter.leave(layer.base)
        self.layers = {}
