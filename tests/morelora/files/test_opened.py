"""Files read without a model: names, shapes, changes, and what needs a base."""

import pytest
import torch

from morelora import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import change_of, open_adapter
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.names import kohya, spellings
from morelora.formats.precision import cast
from morelora.formats.vocabulary import layer_names
from morelora.targets import adaptable_layers
from tests.morelora.files.conftest import SD1, changes, close
from tests.morelora.formats import sd
from tests.morelora.formats.test_forms import SETTINGS
from tests.trainer import miniatures

NEEDS_WEIGHTS = {"dora_scale", "oft_blocks"}
"""Leaves whose change depends on the base's weights."""
FORM_NAMES = ("webui", "lora", "diffusers", "diff")


@pytest.mark.parametrize("family", miniatures.FAMILIES)
def test_the_vocabulary_has_every_layer_of_every_family(family):
    parts = {name: part for name, part in miniatures.parts(family).items() if name != "vae"}
    table = spellings(layer_names())
    for name in adaptable_layers(parts):
        known = name.replace("text_encoder.enc", "text_encoder.text_model.enc").replace(
            "encoder.final", "encoder.text_model.final"
        )
        assert table[kohya(name, family == "sdxl")] == known


@pytest.mark.parametrize("case", SETTINGS)
def test_every_form_is_read_back_by_itself(tmp_path, case):
    adapters = sd.trained({"unet": sd.small()["unet"]}, **{"layers": "all"} | SETTINGS[case])
    expected, path = changes(adapters), tmp_path / "x.safetensors"
    for form in FORM_NAMES:
        try:
            tensors = cast(FORMS[form](adapters), torch.float32)
        except FormatError:
            continue  # which form holds what: test_forms.py
        write(path, tensors, SD1)
        opened = open_adapter(path)
        if any(key.rpartition(".")[2] in NEEDS_WEIGHTS for key in tensors):
            with pytest.raises(FormatError, match="--base"):
                change_of(next(iter(opened.whole().adapters.layers.values())))
            continue
        assert opened.whole().adapters.layers.keys() == expected.keys()
        for name, layer in opened.adapters.layers.items():
            assert layer.site.weight_shape == expected[name].shape and close(change_of(layer), expected[name]), name


@pytest.mark.parametrize("case", ["dora over loha", "ia3", "oft", "boft"])
def test_with_a_base_every_change_is_known(tmp_path, bases, case):
    adapters = sd.trained({"unet": miniatures.parts("sd1")["unet"]}, **{"layers": "attention"} | SETTINGS[case])
    path = tmp_path / "x.safetensors"
    write(path, cast(FORMS["webui"](adapters), torch.float32), {})
    expected = changes(adapters)
    adapters.remove()
    opened = open_adapter(path, Checkpoint.open(bases("sd1", "file"))).whole()
    assert opened.adapters.layers.keys() == expected.keys()
    assert all(close(change_of(layer), expected[name]) for name, layer in opened.adapters.layers.items())


def test_a_shape_that_nothing_tells_asks_for_the_base(tmp_path):
    adapters = sd.trained({"unet": sd.small()["unet"]}, layers="transformer", algorithm="loha", rank=2)
    tensors = cast(FORMS["webui"](adapters), torch.float32)
    for metadata, known in (({}, False), (SD1, True), ({"ss_base_model_version": "sd_v2"}, True)):
        write(tmp_path / "x.safetensors", tensors, metadata)
        opened = open_adapter(tmp_path / "x.safetensors")
        assert bool(opened.unread) != known
        if not known:
            assert all(".proj_" in line for line in opened.unread)
            with pytest.raises(FormatError, match="do not tell the layer's shape: give the base model with --base"):
                opened.whole()
    shape = opened.adapters.layers["unet.mid_block.attentions.0.proj_in"].site.weight_shape
    assert len(shape) == 2  # linear in SD 2.x
