"""8 and 4 bits against a reference written from the papers, and whole runs on a quantised base."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("bitsandbytes")

from morelora.adapted import Adapted  # noqa: E402
from morelora.inject import build  # noqa: E402
from morelora.registry import ALGORITHMS  # noqa: E402
from morelora.targets import Target  # noqa: E402
from tests.trainer import tiny  # noqa: E402
from tests.trainer.test_train import digest, losses, run, stop_after  # noqa: E402
from trainer import settings  # noqa: E402
from trainer.config import DeviceConfig  # noqa: E402
from trainer.errors import InputError, StoppedError  # noqa: E402
from trainer.events import Event, Verified  # noqa: E402
from trainer.memory.quantized import Int8Linear, Nf4Linear, quantize  # noqa: E402
from trainer.train import resume  # noqa: E402

CPU = torch.device("cpu")
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
"""QLoRA, appendix E."""
SHAPES = [(32, 64), (48, 24), (20, 130)]
"""Whole blocks; blocks across rows; a last block that is not full."""


def linear(shape: tuple[int, int]) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0])
    return layer.requires_grad_(False)


def blocks(weight: Tensor) -> Tensor:
    """``(blocks, 64)``, the last one filled up with zeros."""
    flat = weight.flatten()
    return nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)


def nf4(weight: Tensor, absmax: Tensor, scale: Tensor | None = None) -> Tensor:
    """The nearest of the 16 values of each number over its block's largest, times the scale that is stored."""
    nearest = (blocks(weight) / absmax[:, None]).unsqueeze(-1).sub(NF4).abs().argmin(-1)
    return (NF4[nearest] * (absmax if scale is None else scale)[:, None]).flatten()[: weight.numel()].view_as(weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_the_paper_s(shape):
    layer = linear(shape)
    ours = nf4(layer.weight, blocks(layer.weight).abs().amax(1))
    torch.testing.assert_close(Nf4Linear(layer, layer.weight, double=False).weight, ours, rtol=1e-6, atol=1e-7)


def dynamic_map() -> Tensor:
    """The 8-bit dynamic code of arXiv 2110.02861: decades 10^-6 .. 10^0, each cut into twice as many equal parts as the last."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float64)
        middles = ((edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - 6)).tolist()
        values += middles + [-value for value in middles]
    return torch.tensor(sorted(values), dtype=torch.float32)


@pytest.mark.parametrize("shape", [*SHAPES, (300, 128)])
def test_double_quantisation_stores_the_scales_in_8_bits(shape):
    layer = linear(shape)
    absmax = blocks(layer.weight).abs().amax(1)
    mean, code = absmax.mean(), dynamic_map()
    groups = nn.functional.pad(absmax - mean, (0, -len(absmax) % 256)).view(-1, 256)
    largest = groups.abs().amax(1, keepdim=True)
    stored = code[(groups / largest).unsqueeze(-1).sub(code).abs().argmin(-1)] * largest
    scale = stored.flatten()[: len(absmax)] + mean
    ours = nf4(layer.weight, absmax, scale)
    same = torch.isclose(Nf4Linear(layer, layer.weight, double=True).weight, ours, rtol=1e-5, atol=1e-6)
    assert same.float().mean() > 0.995  # a scale halfway between two codes may go to either


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_one_scale_a_row(shape):
    layer = linear(shape)
    scale = layer.weight.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(
        Int8Linear(layer, layer.weight).weight, (layer.weight / scale).round() * scale, rtol=1e-6, atol=1e-7
    )


@pytest.mark.acts("device.quantize", "device.double_quantize")
@pytest.mark.parametrize(("kind", "double", "bits"), [("int8", False, 8.0), ("nf4", False, 4.5), ("nf4", True, 4.127)])
def test_a_weight_takes_the_bits_that_are_promised(kind, double, bits):
    model = nn.Sequential(linear((1024, 1024)))
    assert quantize(model, DeviceConfig(quantize=kind, double_quantize=double), CPU) == 1
    size = sum(buffer.nbytes for name, buffer in model[0].named_buffers() if name not in ("scale", "second_code"))
    assert 8 * size / 1024**2 == pytest.approx(bits, abs=0.005)


def test_layers_of_the_timestep_and_odd_ones_stay():
    model = nn.ModuleDict({"time_embedding": linear((8, 4)), "odd": linear((4, 3)), "proj": linear((4, 8))})
    assert quantize(model, DeviceConfig(quantize="nf4"), CPU) == 1
    assert type(model["time_embedding"]) is nn.Linear and type(model["odd"]) is nn.Linear
    assert isinstance(model["proj"], Nf4Linear)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


QLORA = {"device__quantize": "nf4", "device__double_quantize": True, "export__dtype": "fp32"}


def test_a_qlora_run_resumes_with_the_same_bits_exports_and_is_read_back(inputs, tmp_path):
    events: list[Event] = []
    whole = run(inputs, tmp_path / "whole", events.append, **QLORA)
    plain: list[Event] = []
    run(inputs, tmp_path / "plain", plain.append)
    assert losses(events)[0] == pytest.approx(losses(plain)[0], rel=0.2) and losses(events)[0] != losses(plain)[0]
    verdicts = {event.reader: event for event in events if isinstance(event, Verified)}
    assert verdicts.keys() == {"morelora", "diffusers", "lycoris"}
    assert all(verdict.error < 1e-5 and verdict.layers == verdicts["morelora"].layers for verdict in verdicts.values())
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError):
        run(inputs, tmp_path / "cut", stop_after(3, cut), **QLORA)
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_of_the_weight_is_taken_from_the_weight_as_it_is_kept(start):
    """So that the quantised layer is unchanged at first, and the change is for the weight that forward sees."""
    layer = Nf4Linear(linear((64, 128)), linear((64, 128)).weight, double=False)
    adapter = build(Target("unet.x", "lora", ALGORITHMS["lora"].Options(rank=4, start=start)), layer)
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Adapted(layer, adapter)(x), layer(x))
    u, s, v = torch.linalg.svd(layer.weight.double())
    q, r = torch.linalg.qr(layer.weight.double())
    expected = u[:, :4] * s[:4] @ v[:4] if start == "pissa" else q[:, :4] @ r[:4]
    torch.testing.assert_close(adapter.origin.delta(layer.weight).double(), expected, rtol=0, atol=1e-5)


def test_captions_of_an_unquantised_base_are_not_taken_from_the_cache(inputs, tmp_path):
    first = run(inputs, tmp_path, train__steps=1, train__text_encoder=False)
    entries = set((first / "cache").glob("text-*"))
    config = first / "config.toml"
    config.write_text(config.read_text().replace('quantize = "none"', 'quantize = "int8"', 1))
    for checkpoint in (first / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    resume(first, listener=lambda event: None)
    assert len(set((first / "cache").glob("text-*"))) == 2 * len(entries)


def test_a_resumed_run_may_not_be_quantised_otherwise(inputs, tmp_path):
    done = run(inputs, tmp_path, train__steps=1)
    config = done / "config.toml"
    config.write_text(config.read_text().replace('quantize = "none"', 'quantize = "int8"', 1))
    with pytest.raises(InputError, match=r"device\.quantize"):
        resume(done, listener=lambda event: None)


def test_without_bitsandbytes_it_says_how_to_install_it_before_anything_is_made(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match="bitsandbytes") as refused:
        run(inputs, tmp_path / "out", device__quantize="nf4")
    assert "-m pip install bitsandbytes" in refused.value.fix and not (tmp_path / "out").exists()


def test_double_quantisation_of_nothing_is_refused():
    with pytest.raises(InputError, match="double_quantize has no effect"):
        settings.parse({"device": {"double_quantize": True}, "data": {"images": "x"}}, "test")
