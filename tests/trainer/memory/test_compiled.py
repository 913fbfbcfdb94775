"""Compiled blocks compute what they computed before, in training, with adapters, checkpointing and bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.trainer import tiny
from tests.trainer.test_train import digest, losses, run, stop_after
from trainer import memory, settings
from trainer.config import DeviceConfig
from trainer.errors import InputError, StoppedError
from trainer.events import Event
from trainer.memory import compiled
from trainer.memory.compiled import compile_blocks, uncompiled
from trainer.memory.quantized import quantize
from trainer.models import load
from trainer.session import add_adapters
from trainer.train import resume

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def step(inputs, backend: str | None, device: dict, **changes) -> tuple[Tensor, Tensor, nn.Module]:  # noqa: ANN001
    """Prediction and gradient of one step with random adapters; ``backend`` compiles the blocks."""
    torch._dynamo.reset()
    config = settings.parse(tiny.values(*inputs, inputs[0], **changes), "test")
    bundle = load(config.model)
    if device:
        pytest.importorskip("bitsandbytes")
        quantize(bundle.unet, DeviceConfig(**device), CPU)
    adapters, _ = add_adapters(config, bundle)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapters.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
    if config.train.gradient_checkpointing:
        bundle.enable_gradient_checkpointing()
    if backend:
        compile_blocks(bundle.unet, CPU, backend)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 16, 24, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
        y = bundle.unet(x, torch.tensor([5, 300]), encoder_hidden_states=text).sample
    y.float().square().mean().backward()
    return y.detach(), torch.cat([p.grad.flatten() for p in adapters.parameters() if p.grad is not None]), bundle.unet


@pytest.mark.parametrize(
    ("device", "changes", "tolerance"),
    [
        ({}, {"adapter__algorithm": "loha", "adapter__weight_decompose": True, "train__gradient_checkpointing": True}, 1e-4),
        ({"quantize": "nf4", "double_quantize": True}, {"adapter__algorithm": "lokr", "train__precision": "bf16"}, 0.05),
    ],
    ids=["loha+dora, checkpointing", "lokr on nf4 in bf16"],
)
def test_a_compiled_step_is_the_step(inputs, device, changes, tolerance):
    y, gradient, _ = step(inputs, None, device, **changes)
    torch._dynamo.utils.counters.clear()
    ours, ours_gradient, unet = step(inputs, "aot_eager", device, **changes)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2 and not torch._dynamo.utils.counters["graph_break"]
    assert (ours - y).norm() <= tolerance * y.norm()
    assert (ours_gradient - gradient).norm() <= tolerance * gradient.norm()
    blocks = [module for module in unet.modules() if type(module).__name__ == "BasicTransformerBlock"]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    torch._dynamo.utils.counters.clear()
    with uncompiled(), torch.no_grad():
        unet.eval()(torch.zeros(1, 4, 16, 16), 5, encoder_hidden_states=torch.zeros(1, 16, 24))
    assert not torch._dynamo.utils.counters["stats"]


def test_a_compiled_run_is_the_run_and_resumes_with_the_same_bits(inputs, tmp_path, monkeypatch):
    plain: list[Event] = []
    run(inputs, tmp_path / "plain", plain.append)
    torch._dynamo.reset()
    monkeypatch.setattr(compiled.compile_blocks, "__defaults__", ("aot_eager",))
    events: list[Event] = []
    changes = {"device__compile": True}
    whole = run(inputs, tmp_path / "whole", events.append, **changes)
    assert losses(events) == pytest.approx(losses(plain), rel=1e-3)
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError):
        run(inputs, tmp_path / "cut", stop_after(3, cut), **changes)
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)


@pytest.mark.slow
def test_code_of_the_default_compiler_computes_the_same():
    """One attention block of diffusers with an adapted layer, through real generated C++."""
    from diffusers.models.attention import BasicTransformerBlock

    from morelora import AdapterConfig, inject, resolve

    torch.manual_seed(0)
    block = nn.ModuleDict({"attn": BasicTransformerBlock(16, 2, 8, cross_attention_dim=16)}).requires_grad_(False)
    adapters = inject({"unet": block}, resolve({"unet": block}, AdapterConfig()))
    for parameter in adapters.parameters():
        parameter.data.normal_(0, 0.1)
    x, found = torch.randn(2, 8, 16), []
    for compiles in (False, True):
        if compiles:
            compiled.check_compiler(CPU)
            block["attn"].compile()
        y = block["attn"](x, encoder_hidden_states=x)
        gradients = torch.autograd.grad(y.square().mean(), adapters.parameters())
        found.append([y.detach(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.acts("device.compile")
def test_no_compiler_is_told_before_anything_is_made(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        memory.check(DeviceConfig(compile=True), CPU)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="triton"):
        memory.check(DeviceConfig(compile=True), torch.device("cuda"))
