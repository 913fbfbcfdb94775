"""Speed and memory on the device: the form of the base model, what rests off the device, and what a run will need."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.config import Config, DeviceConfig
from trainer.memory.attention import check_attention, set_attention
from trainer.memory.compiled import check_compiler, compile_blocks, uncompiled
from trainer.memory.determinism import deterministic, notes
from trainer.memory.offload import Resting
from trainer.memory.quantized import library, quantize
from trainer.models import Bundle

__all__ = ["Resting", "check", "compile_blocks", "deterministic", "notes", "prepare", "resting_parts", "uncompiled"]


def check(config: DeviceConfig, device: torch.device) -> None:
    """Raise ``InputError`` where a setting needs something that is not installed; asked before anything is made."""
    if config.quantize != "none":
        library()
    if config.compile:
        check_compiler(device)
    check_attention(config.attention)


def prepare(bundle: Bundle, config: DeviceConfig, device: torch.device, notice: Callable[[str], None]) -> None:
    """Bring a base model to its device in the form that the settings ask for. Raises ``InputError`` as ``check``."""
    if config.quantize != "none":
        for part in bundle.components(unet=True, text_encoder=True).values():
            quantize(part, config, device)
    bundle.to(device)
    if config.channels_last:
        bundle.unet.to(memory_format=torch.channels_last)
    set_attention(bundle.unet, config.attention, device, notice)


def resting_parts(bundle: Bundle, config: Config, device: torch.device, texts_rest: bool) -> Resting:
    """What may rest while the denoiser trains: the VAE, and text encoders whose captions are cached."""
    if not config.device.offload or device.type == "cpu":
        return Resting(device)
    texts = list(bundle.text_encoders.values()) if texts_rest else []
    return Resting(device, [bundle.vae, *texts])
