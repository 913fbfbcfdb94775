"""Files of different algorithms on one pipeline: weighed, taken off and put back, they give the merged model's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import morelora
from morelora import AdapterConfig, inject, resolve
from morelora.formats import FORMS
from morelora.formats.container import write
from tests.trainer import miniatures
from trainer.config import ModelConfig
from trainer.models import Bundle, load
from trainer.modes import untouched

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "pissa": {"rank": 3, "start": "pissa"},
    "dora": {"rank": 4, "weight_decompose": True},
    "dora, output axis": {"algorithm": "loha", "rank": 2, "weight_decompose": True, "decompose_axis": "output"},
    "lokr": {"algorithm": "lokr", "factor": 4, "full_matrix": True},
    "hadamard": {"algorithm": "hadamard", "rank": 4, "k": 2, "nonlinear": "tanh"},
    "oft": {"algorithm": "oft", "block_size": 4},
    "ia3": {"algorithm": "ia3"},
    "ssf": {"algorithm": "ssf"},
    "norm": {"algorithm": "norm"},
    "bitfit": {"algorithm": "bitfit"},
    "serial": {"algorithm": "serial"},
}
CASES = [
    ("pocket", "lora", "dora"),
    ("pocket", "norm", "ssf"),
    ("pocket", "hadamard", "bitfit"),
    ("pocket", "ia3", "pissa"),
    ("pocket", "lokr", "serial"),
    ("pocket", "serial", "oft"),
    ("sd1", "dora, output axis", "lokr"),
    ("sdxl", "ssf", "lora"),
]
SIZE = {"pocket": 0.03, "sd1": 0.06, "sdxl": 0.06}
"""Of the random numbers in the adapters."""
PROMPT = "a fox on the moon"
CLOSE = 3e-5
"""Of pictures in ``0 .. 1``."""

Weighed = Sequence[tuple[Path, float]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def bundle(family: str) -> Bundle:
        folder = tmp_path_factory.mktemp(family)
        base = "pocket" if family == "pocket" else str(miniatures.save_folder(family, folder))
        return load(ModelConfig(base=base))

    return bundle


def picture(bundle: Bundle) -> Tensor:
    """Sampled from noise at a fixed seed in a few steps, and decoded."""
    with untouched(bundle.unet, *bundle.text_encoders.values()):
        latents = bundle.pipeline(
            **bundle.prompt_arguments([PROMPT], [""]), num_inference_steps=2, guidance_scale=2.0, width=64, height=64,
            generator=torch.Generator().manual_seed(3), output_type="latent",
        ).images  # fmt: skip
        return bundle.decode_latents(latents)


def parts(bundle: Bundle) -> dict[str, nn.Module]:
    return bundle.components(unet=True, text_encoder=True)


def bits(bundle: Bundle) -> dict[str, Tensor]:
    return {f"{name}.{key}": value.clone() for name, model in parts(bundle).items() for key, value in model.state_dict().items()}


def same_bits(bundle: Bundle, before: dict[str, Tensor]) -> bool:
    now = bits(bundle)
    return now.keys() == before.keys() and all(torch.equal(now[key], tensor) for key, tensor in before.items())


@torch.no_grad()
def make(bundle: Bundle, kind: str, size: float, file: Path) -> Path:
    """A file of an adapter that is as if it had been trained."""
    config = AdapterConfig.model_validate({"layers": "all"} | KINDS[kind])
    generator = torch.Generator().manual_seed(len(kind))
    adapters = inject(parts(bundle), resolve(parts(bundle), config), generator)
    for parameter in adapters.parameters():
        parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    tensors = FORMS["sidecar" if kind == "serial" else "webui"](adapters)
    write(file, {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, {})
    adapters.remove()
    return file


@torch.no_grad()
def merged_by_hand(bundle: Bundle, files: Weighed) -> Tensor:
    """The picture of the base with ``W -> W + t delta(W)``, ``b -> b + t bias_delta(b)`` for one file after the other.

    Serial adapters are no change of weights: they are put on after all the others.
    """
    before, left = bits(bundle), []
    for file, strength in files:
        adapters = morelora.load(bundle.pipeline, file)
        layers = [(layer.adapter, layer.base) for layer in adapters.layers.values() if layer.adapter.mergeable]
        adapters.remove()
        if not layers:
            left.append((file, strength))
        for adapter, layer in layers:
            shift = adapter.bias_delta(layer.bias)
            layer.weight.add_(strength * adapter.delta(layer.weight))
            if shift is not None:
                layer.bias.add_(strength * shift)
    beside = [morelora.load(bundle.pipeline, file, strength) for file, strength in left]
    result = picture(bundle)
    for adapters in beside:
        adapters.remove()
    for name, model in parts(bundle).items():
        model.load_state_dict({key: before[f"{name}.{key}"] for key in model.state_dict()})
    return result


def assert_merged(bundle: Bundle, shown: dict[tuple[tuple[Path, float], ...], list[Tensor]]) -> None:
    """These pictures, by the files and strengths that they were sampled with, are those of the base with these merged in."""
    base, before = picture(bundle), bits(bundle)
    for files, pictures in shown.items():
        expected = merged_by_hand(bundle, files)
        assert same_bits(bundle, before) and (expected - base).abs().max() > 1000 * CLOSE
        assert all((found - expected).abs().max() < CLOSE for found in pictures)


@pytest.mark.parametrize(("family", "one", "other"), CASES, ids=str)
def test_pictures_are_those_of_the_merged_model(bundles, tmp_path, family, one, other):
    bundle = bundles(family)
    base, before = picture(bundle), bits(bundle)
    files = [make(bundle, kind, SIZE[family], tmp_path / f"{kind}.safetensors") for kind in (one, other)]
    first, second = (morelora.load(bundle.pipeline, file) for file in files)
    first.strength, second.strength = 0.7, -0.5
    shown = {((files[0], 0.7), (files[1], -0.5)): [picture(bundle)]}
    first.remove()
    shown[((files[1], -0.5),)] = [picture(bundle)]
    second.strength = 0.0
    assert torch.equal(picture(bundle), base)
    second.strength = 0.8
    first = morelora.load(bundle.pipeline, files[0], 0.6)  # now upon the other
    stacked = [picture(bundle)]
    changes = [each for each in (second, first) if all(adapter.mergeable for _, adapter in each)]
    for each in changes:
        each.merge()
    shown[((files[1], 0.8), (files[0], 0.6))] = [*stacked, picture(bundle)]
    for each in reversed(changes):
        each.unmerge()
    assert torch.equal(picture(bundle), stacked[0])
    second.remove()
    first.remove()
    assert same_bits(bundle, before) and torch.equal(picture(bundle), base)
    assert_merged(bundle, shown)
