"""xformers is asked once and fairly: refused where it is absent, told where it does not work, used where it does."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from trainer import memory
from trainer.config import DeviceConfig
from trainer.errors import InputError
from trainer.memory import attention

CPU = torch.device("cpu")


class Denoiser:
    """Notes what it is told to use."""

    dtype = torch.float32
    used = ""

    def enable_xformers_memory_efficient_attention(self) -> None:
        self.used = "xformers"


def pretend(monkeypatch, operation) -> None:  # noqa: ANN001
    """An installed xformers whose attention is ``operation``."""
    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    ops.memory_efficient_attention = operation
    package.ops = ops
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr(attention, "find_spec", lambda name: SimpleNamespace(name=name))


@pytest.mark.acts("device.attention")
def test_without_xformers_it_is_refused_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="xformers is not installed") as refused:
        memory.check(DeviceConfig(attention="xformers"), CPU)
    assert "-m pip install xformers" in refused.value.fix
    memory.check(DeviceConfig(), CPU)


def test_one_that_does_not_work_is_told_once_and_left(monkeypatch):
    def fails(q, k, v):  # noqa: ANN001, ANN202
        raise NotImplementedError("no operator for this device")

    pretend(monkeypatch, fails)
    unet, said = Denoiser(), []
    attention.set_attention(unet, "xformers", CPU, said.append)
    assert unet.used == "" and len(said) == 1
    assert "no operator for this device" in said[0] and "PyTorch's own" in said[0]


def test_one_that_works_is_probed_with_one_token_and_used(monkeypatch):
    shapes = []
    pretend(monkeypatch, lambda q, k, v: shapes.append(tuple(q.shape)) or q)
    unet, said = Denoiser(), []
    attention.set_attention(unet, "xformers", CPU, said.append)
    assert unet.used == "xformers" and not said and shapes == [(1, 1, 1, attention.HEAD)]


@pytest.mark.parametrize("kind", ["auto", "sdpa"])
def test_otherwise_attention_is_pytorchs_own(monkeypatch, kind):
    pretend(monkeypatch, lambda q, k, v: q)
    unet = Denoiser()
    attention.set_attention(unet, kind, CPU, pytest.fail)
    assert unet.used == ""
