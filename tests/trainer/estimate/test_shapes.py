"""Shapes alone against real steps: bytes of weights, and the peak that operations really reach."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.trainer import tiny
from trainer import presets, settings
from trainer.config import DeviceConfig
from trainer.estimate import PROGRAM
from trainer.estimate.shapes import empty_parts, predict, weight_bytes
from trainer.estimate.tracker import PeakTracker, fused_attention, peak_of
from trainer.memory.quantized import quantize
from trainer.models import find, load, shapes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), folder / "pictures"


def configured(inputs, **changes):  # noqa: ANN001, ANN003, ANN201
    return settings.parse(tiny.values(*inputs, inputs[0], **changes), "test")


def test_the_tracker_counts_births_and_deaths():
    a = torch.empty(1000, device="meta")
    with PeakTracker([a]) as tracker:
        b = a + 1
        c = b.view(10, 100)
        del b
        d = c * 2
        del c, d
        e = a * 3
        a.mul_(2)
    assert tracker.peak == 8000 and tracker.live == e.nbytes == 4000


def chain(width: int, layers: int, saving: bool) -> tuple[nn.Module, partial[Tensor]]:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width)) for _ in range(layers)))
    model = model.to("meta").requires_grad_(False)

    def step() -> Tensor:
        x = torch.empty(64, width, device="meta", requires_grad=True)
        for layer in model:
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False) if saving else layer(x)
        return x.sum()

    return model, step


def test_checkpointing_keeps_what_stands_between_blocks():
    """Every tanh keeps its output of 64 x 256 numbers; with checkpointing every block its input, and one block is at work."""
    size = 64 * 256 * 4
    model, step = chain(256, 20, saving=False)
    assert 20 * size <= peak_of(step, [model]) <= 25 * size
    deep, saving = chain(256, 40, saving=True)
    assert 40 * size <= peak_of(saving, [deep]) <= 45 * size


def test_attention_keeps_no_table_of_positions():
    q = torch.empty(1, 4, 512, 8, device="meta", requires_grad=True)
    with fused_attention(), PeakTracker([q]) as tracker:
        out = nn.functional.scaled_dot_product_attention(q, q, q)
        out.sum().backward()
    assert out.shape == q.shape and tracker.peak < 8 * q.nbytes < 512 * 512 * 4


@pytest.mark.parametrize("device", [{}, {"quantize": "int8"}, {"quantize": "nf4"}, {"quantize": "nf4", "double_quantize": True}])
def test_weights_are_counted_as_they_will_be_held(inputs, device):
    pytest.importorskip("bitsandbytes")
    config = configured(inputs, **{f"device__{name}": value for name, value in device.items()})
    bundle = load(config.model)
    parts = bundle.components(unet=True, text_encoder=True)
    if device:
        for part in parts.values():
            quantize(part, DeviceConfig(**device), CPU)
    held = sum(tensor.nbytes for part in (bundle.vae, *parts.values()) for tensor in (*part.parameters(), *part.buffers()))
    # rows of int8 have a scale each, small blocks of nf4 are not full: a miniature has more of both for its size
    assert weight_bytes(config, empty_parts(find(config.model)), CPU) == pytest.approx(held, rel=0.12)


def test_text_encoders_that_rest_take_nothing_of_the_device(inputs):
    parts = empty_parts(find(configured(inputs).model))
    denoiser = sum(4 * p.numel() for p in parts["unet"].parameters())
    assert weight_bytes(configured(inputs, train__text_encoder=False), parts, GPU) == denoiser
    for changes in ({"train__text_encoder": True}, {"train__text_encoder": False, "device__offload": False}):
        assert weight_bytes(configured(inputs, **changes), parts, GPU) > denoiser


def test_each_remedy_lowers_the_need(inputs):
    source = find(configured(inputs).model)

    def need(side: int = 64, **changes):  # noqa: ANN003, ANN202
        return predict(configured(inputs, **changes), source, (side, side), CPU)

    plain = need(train__batch_size=8)
    assert need(train__batch_size=16).activations == pytest.approx(2 * plain.activations, rel=0.15)
    assert need(train__batch_size=8, train__precision="bf16").activations < 0.7 * plain.activations
    assert need(train__batch_size=8, train__gradient_checkpointing=True).activations < 0.8 * plain.activations
    assert need(128, train__batch_size=8).activations > 3 * plain.activations
    vae = 4 * sum(parameter.numel() for parameter in empty_parts(source)["vae"].parameters())
    assert need(model__dtype="bf16").weights - vae == (plain.weights - vae) / 2
    assert plain.trained == need(train__batch_size=1).trained > 0


@pytest.mark.parametrize(
    ("name", "room"), [("sd15-lora-8gb", 8), ("sd21-lora-8gb", 8), ("sdxl-lora-12gb", 12), ("sdxl-lora-8gb", 8)]
)
def test_a_preset_for_a_small_card_fits_it(name, room):
    """Full-size networks without memory; a twelfth of the card is left to what else is on it."""
    config = settings.parse(presets.load(name), name)
    parts = ["unet", "vae", "text_encoder", *["text_encoder_2"] * (config.model.family == "sdxl")]
    configs = {part: SimpleNamespace(config=shapes.shipped(config.model.family, part)) for part in parts}
    side = config.data.resolution
    need = predict(config, SimpleNamespace(parts=configs, pixel_factor=8), (side, side), GPU)
    assert PROGRAM + need.total < room * 2**30 * 11 / 12


def test_pictures_need_the_vae_and_what_rests(inputs):
    """A preview of four times the area holds four times as much; the peak is the larger of both."""
    source, config = find(configured(inputs).model), configured(inputs, train__text_encoder=False)
    small = predict(config, source, (64, 64), GPU)
    large = predict(configured(inputs, train__text_encoder=False, preview__width=512, preview__height=512), source, (64, 64), GPU)
    resting = weight_bytes(config, empty_parts(source), CPU) - small.weights
    assert resting > 0 and large.pictures - resting == pytest.approx(64 * (small.pictures - resting), rel=0.1)
    assert large.total == large.weights + large.trained + large.pictures
