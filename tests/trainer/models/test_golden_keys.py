"""The keys of a file for each published model at full size, against lists written out from the architectures."""

from __future__ import annotations

import pytest

from morelora import AdapterConfig, resolve
from morelora.formats.names import is_sdxl, kohya
from morelora.formats.original import LAYOUTS
from tests.trainer import golden
from trainer.models import shapes
from trainer.models.parts import build_empty

TEXT_LAYERS = {"sd1": (12,), "sd2": (23,), "sdxl": (12, 32)}
MODULES = {"sd1": (192, 72), "sd2": (192, 138), "sdxl": (722, 264)}
"""Modules of the UNet and of the text encoders that sd-scripts reports for a plain LoRA."""


@pytest.mark.parametrize("family", LAYOUTS)
def test_keys_are_the_familys(family):
    models = {name: build_empty(name, shapes.shipped(family, name)) for name in LAYOUTS[family] if name != "vae"}
    sdxl = is_sdxl(models)
    assert sdxl == (family == "sdxl")
    full = [kohya(target.name, sdxl) for target in resolve(models, AdapterConfig(layers="all"))]
    assert len(full) == len(set(full)) and set(full) == golden.keys(family, TEXT_LAYERS[family])
    plain = [kohya(target.name, sdxl) for target in resolve(models, AdapterConfig(layers="transformer"))]
    unet = [key for key in plain if key.startswith("lora_unet_")]
    assert (len(unet), len(plain) - len(unet)) == MODULES[family]
