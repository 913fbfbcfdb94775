"""What the adapters of a recipe count before they are made: numbers that train, numbers of the file, the work of a step.

From shapes alone, without a weight: layers of one kind once, whatever their number, and what was counted once is remembered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from morelora import ALGORITHMS, AdapterConfig, resolve
from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.errors import MoreLoraError
from morelora.inject import build
from morelora.site import NormSite, Site
from morelora.targets import Target, adaptable_layers
from trainer.config import Config
from trainer.estimate.shapes import META, compute_dtype, forward
from trainer.estimate.work import UPDATE, work_of

Shape = tuple[int, ...]
Kind = tuple[Target, Site]
"""What layers have that count alike: a target named after its component alone, and the layer's shape."""


class Base:
    """A base model without memory: its parts by name, but for the VAE."""

    def __init__(self, models: Mapping[str, Any], pixel_factor: int) -> None:
        self.models = models
        self.sites = {name: Site.of(layer) for name, layer in adaptable_layers(models).items()}
        self._pixel_factor = pixel_factor
        self._frozen: dict[Any, tuple[int, dict[str, Shape]]] = {}

    @cached_property
    def algorithms(self) -> list[str]:
        """Those that there is a layer for."""
        return [name for name in ALGORITHMS if self._bears(AdapterConfig(algorithm=name, layers="all"))]

    def _bears(self, config: AdapterConfig) -> bool:
        try:
            return bool(resolve(self.models, config))
        except MoreLoraError:
            return False

    def frozen(self, config: Config) -> tuple[int, dict[str, Shape]]:
        """The work of a step of the UNet without adapters, and the shape of each of its layers' inputs."""
        place = self.place(config)
        if place not in self._frozen:
            self._frozen[place] = self._measured(config)
        return self._frozen[place]

    def place(self, config: Config) -> tuple[Any, ...]:
        """What the work of a step without adapters depends on."""
        return config.data.resolution, config.train.batch_size, config.model.caption_chunks, compute_dtype(config)

    def _measured(self, config: Config) -> tuple[int, dict[str, Shape]]:
        side, shapes = config.data.resolution // self._pixel_factor, {}
        unet = self.models["unet"].to(compute_dtype(config))
        unet.conv_in.bias.requires_grad_()  # so that gradients run through the whole of it

        def see(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
            shapes[name] = tuple(given[0].shape)

        layers = [(name, unet.get_submodule(name.partition(".")[2])) for name in self.sites if name.startswith("unet.")]
        hooks = [layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers]
        work = work_of(lambda: forward(config, [], self.models, (side, side)))
        for hook in hooks:
            hook.remove()
        return work, shapes


class Counted:
    """The adapters of some parts of a base. Raises ``AdapterError`` where they do not fit."""

    def __init__(self, base: Base, adapter: AdapterConfig, parts: Iterable[str]) -> None:
        self._base = base
        self._targets = resolve({name: base.models[name] for name in parts}, adapter)
        self._layers = Counter((replace(target, name=target.component), base.sites[target.name]) for target in self._targets)
        self._counts = {kind: count_layer(*kind) for kind in self._layers}
        self._work: dict[Any, int] = {}

    @property
    def numbers(self) -> int:
        """That train; what layers have in common counts once."""
        shared = {
            (kind, site.weight_shape, leaf): size
            for (kind, site), count in self._counts.items()
            for leaf, size in count.shared.items()
        }
        return sum(times * self._counts[kind].numbers for kind, times in self._layers.items()) + sum(shared.values())

    @property
    def written(self) -> tuple[int, int] | None:
        """Numbers and tensors of the file, as the adapters write it by themselves; None where they depend on the training."""
        counts = [(times, self._counts[kind].written) for kind, times in self._layers.items()]
        known = [(times * count[0], times * count[1]) for times, count in counts if count]
        return None if len(known) < len(counts) else (sum(size for size, _ in known), sum(tensors for _, tensors in known))

    def knows_work(self, config: Config) -> bool:
        """Whether ``work`` answers at once."""
        return self._base.place(config) in self._work

    def work(self, config: Config) -> int:
        """Of a step of the UNet with these adapters, in the unit of ``morelora.cost``."""
        place = self._base.place(config)
        if place not in self._work:
            frozen, shapes = self._base.frozen(config)
            layers = Counter(
                (replace(target, name=target.component), self._base.sites[target.name], shapes[target.name])
                for target in self._targets
                if target.name in shapes
            )
            more = sum(times * extra(*layer, compute_dtype(config)) for layer, times in layers.items())
            self._work[place] = frozen + more + UPDATE * self.numbers
        return self._work[place]


@dataclass(frozen=True)
class Count:
    """The adapter of one layer."""

    numbers: int
    """That train, without ``shared``."""
    shared: Mapping[str, int]
    """The same of tensors that layers have in common, by name."""
    written: tuple[int, int] | None
    """Numbers and tensors in the file; None where values decide."""


@lru_cache(maxsize=4096)
def count_layer(kind: Target, site: Site) -> Count:
    """Raises ``AdapterError`` where algorithm and layer do not fit."""
    layer, adapter = _made(kind, site, torch.float32)
    trained = {leaf: each.numel() for leaf, each in adapter.named_parameters() if each.requires_grad}
    shared = {leaf: size for leaf, size in trained.items() if leaf.rpartition(".")[2] in adapter.plain.shared}
    return Count(sum(trained.values()) - sum(shared.values()), shared, _written(adapter, layer))


def _written(adapter: Adapter, layer: nn.Module) -> tuple[int, int] | None:
    try:
        with META:
            tensors = adapter.file_tensors(layer, 1.0) if adapter.mergeable else adapter.tensors(1.0)
    except NotImplementedError:  # of torch, where values decide on a shape
        return None
    return sum(tensor.numel() for tensor in tensors.values()), len(tensors)


@lru_cache(maxsize=4096)
def extra(kind: Target, site: Site, shape: Shape, dtype: torch.dtype) -> int:
    """The work of an adapted layer in a step beyond that of the frozen one; ``shape`` is that of its input."""
    layer, adapter = _made(kind, site, dtype)
    x = torch.empty(shape, dtype=dtype, device=META, requires_grad=True)
    return work_of(lambda: Adapted(layer, adapter).eval()(x)) - work_of(lambda: layer(x))


def _made(kind: Target, site: Site, dtype: torch.dtype) -> tuple[nn.Module, Adapter]:
    """A layer and its adapter, both without memory."""
    with META:
        layer = _frozen_layer(site).requires_grad_(False).to(dtype)
        return layer, build(kind, layer)


def _frozen_layer(site: Site) -> nn.Module:
    if isinstance(site, NormSite):
        return nn.GroupNorm(site.channel_groups, site.m, site.eps) if site.channel_groups else nn.LayerNorm(site.m, site.eps)
    if site.kernel is None:
        return nn.Linear(site.n, site.m, site.has_bias)
    form = site.kernel, site.stride, site.padding, site.dilation, site.groups
    return nn.Conv2d(site.n * site.groups, site.m, *form, bias=site.has_bias)
