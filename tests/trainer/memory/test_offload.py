"""What rests, what comes back, and what stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainer.config import Config, DeviceConfig
from trainer.memory import Resting, resting_parts

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Part(nn.Module):
    """Notes where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, device: torch.device) -> Part:  # type: ignore[override]
        self.places.append(device.type)
        return self


def bundle() -> SimpleNamespace:
    return SimpleNamespace(vae=Part(), unet=Part(), text_encoders={"text_encoder": Part(), "text_encoder_2": Part()})


def config(offload: bool = True) -> Config:
    return Config(device=DeviceConfig(offload=offload))


def test_the_vae_and_untrained_text_encoders_rest_and_come_back_for_previews(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model = bundle()
    resting = resting_parts(model, config(), GPU, texts_rest=True)
    resting.rest()
    parts = [model.vae, *model.text_encoders.values()]
    assert all(part.places == ["cpu"] for part in parts)
    with pytest.raises(RuntimeError), resting.awake():
        assert all(part.places[-1] == "cuda" for part in parts)
        raise RuntimeError("a preview that fails")
    assert all(part.places == ["cpu", "cuda", "cpu"] for part in parts) and not model.unet.places


def test_a_text_encoder_that_is_needed_in_the_loop_stays():
    model = bundle()
    assert resting_parts(model, config(), GPU, texts_rest=False).modules == [model.vae]


@pytest.mark.acts("device.offload")
@pytest.mark.parametrize(("offload", "device"), [(False, GPU), (True, CPU)])
def test_nothing_rests_where_it_is_off_or_the_device_is_the_cpu(offload, device):
    assert resting_parts(bundle(), config(offload), device, texts_rest=True).modules == []


def test_nothing_to_move_is_no_work():
    with Resting(GPU).awake():
        pass
