"""Our key maps at the published models' full sizes against diffusers' own conversion, key by key; on the meta device."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor

from morelora.formats.original import LAYOUTS
from trainer.models import shapes
from trainer.models.parts import build_empty

PARAMETERS = {
    ("sd1", "unet"): 859_520_964,
    ("sd2", "unet"): 865_910_724,
    ("sdxl", "unet"): 2_567_463_684,
    ("sd1", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
}
"""Of the published models."""


def parts(family: str) -> dict[str, torch.nn.Module]:
    return {name: build_empty(name, shapes.shipped(family, name)) for name in LAYOUTS[family]}


def original_file(family: str, models: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    """A checkpoint without memory, with the shapes that the published files have."""
    found: dict[str, Tensor] = {}
    for name, layout in LAYOUTS[family].items():
        state = models[name].state_dict()
        for key, place in layout(state).items():
            shape = list(state[key].shape)
            shape = shape[::-1] if place.is_transposed else shape
            shape[0] *= 3 if place.third is not None else 1
            shape += [1, 1] if ".mid.attn_1." in place.key and len(shape) == 2 else []
            found[place.key] = torch.empty(shape, device="meta")
    return found


@pytest.fixture(scope="module", params=LAYOUTS)
def family(request) -> str:  # noqa: ANN001
    return request.param


@pytest.fixture(scope="module")
def models(family: str) -> dict[str, torch.nn.Module]:
    return parts(family)


@pytest.fixture(scope="module")
def file(family: str, models: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    return original_file(family, models)


def test_the_shipped_configs_are_the_published_models(family, models):
    for name, model in models.items():
        if (family, name) in PARAMETERS:
            assert sum(p.numel() for p in model.parameters()) == PARAMETERS[family, name], name


def test_sizes_read_from_the_shapes_are_the_shipped_ones(family, file):
    files = [file]
    if family == "sd2":  # the published file holds one layer more than is used, and a projection; conversions do not
        last = {key.replace(".22.", ".23."): tensor for key, tensor in file.items() if ".resblocks.22." in key}
        files.append(file | last | {"cond_stage_model.model.text_projection": torch.empty(1024, 1024, device="meta")})
    for tensors in files:
        found = shapes.configs(family, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
        for name, config in found.items():
            assert config == shapes.shipped(family, name), name


def test_every_key_is_where_diffusers_finds_it(family, models, file):
    for name, layout in LAYOUTS[family].items():
        places = layout(models[name].state_dict())
        theirs = diffusers_places(family, name, models[name], file)
        assert {key: place.key for key, place in places.items()} == theirs, name


def test_names_that_are_used_are_used_once(family, models):
    for name, layout in LAYOUTS[family].items():
        places = list(layout(models[name].state_dict()).values())
        assert len(set(places)) == len(places), name
        thirds: dict[str, set[int | None]] = {}
        for place in places:
            thirds.setdefault(place.key, set()).add(place.third)
        assert {frozenset(found) for found in thirds.values()} <= {frozenset({None}), frozenset({0, 1, 2})}


def diffusers_places(family: str, name: str, model: torch.nn.Module, file: dict[str, Tensor]) -> dict[str, str]:
    """The model's key -> the original key that diffusers' conversion takes it from."""
    marked = {key: Marked(key, tensor) for key, tensor in file.items()}
    if name == "unet":
        converted = convert_ldm_unet_checkpoint(marked, dict(model.config))
    elif name == "vae":
        converted = convert_ldm_vae_checkpoint(marked, dict(model.config))
    elif (family, name) in {("sd1", "text_encoder"), ("sdxl", "text_encoder")}:
        converted = convert_ldm_clip_checkpoint(marked)
    else:
        prefix = "cond_stage_model.model." if family == "sd2" else "conditioner.embedders.1.model."
        converted = convert_open_clip_checkpoint(model, marked, prefix=prefix)
    own = model.state_dict()
    bare = {key.removeprefix("text_model."): key for key in own}
    return {bare[key.removeprefix("text_model.")]: tensor.name for key, tensor in converted.items()}


class Marked:
    """Stands for a tensor and remembers its key through cuts, turns and copies."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self.shape, self.ndim = name, tensor.shape, tensor.dim()

    def __getitem__(self, index: object) -> Marked:
        return self

    @property
    def T(self) -> Marked:  # noqa: N802
        return self

    def contiguous(self) -> Marked:
        return self

    clone = detach = contiguous
