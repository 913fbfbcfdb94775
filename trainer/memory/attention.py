"""How the denoiser computes attention: PyTorch's own, or xformers where it works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from trainer.errors import InputError

HEAD = 64
"""Width of a head in the probe; every head of SD 1.x to SDXL is a multiple of 8 within what xformers takes."""


def set_attention(unet: Any, kind: str, device: torch.device, notice: Callable[[str], None]) -> None:
    """Choose the attention of a denoiser.

    Args:
        kind: ``auto`` and ``sdpa`` are PyTorch's own, which is also diffusers' default; ``xformers``.
        notice: is told, once, where xformers is installed but does not work on this device; PyTorch's own then serves.

    Raises:
        InputError: xformers is asked for but not installed.
    """
    check_attention(kind)
    if kind != "xformers":
        return
    problem = probe_xformers(device, unet.dtype)
    if problem:
        notice(f"xformers does not work on this device ({problem}): attention is PyTorch's own")
    else:
        unet.enable_xformers_memory_efficient_attention()


def check_attention(kind: str) -> None:
    """Raise ``InputError`` where xformers is asked for but not installed."""
    if kind == "xformers" and find_spec("xformers") is None:
        raise InputError(
            "device.attention = 'xformers', but xformers is not installed",
            f"install it with {sys.executable} -m pip install xformers, or use device.attention = 'sdpa'",
        )


def probe_xformers(device: torch.device, dtype: torch.dtype) -> str:
    """Run attention over one token; why that fails, or an empty text."""
    try:
        from xformers.ops import memory_efficient_attention

        token = torch.zeros(1, 1, 1, HEAD, device=device, dtype=dtype)
        memory_efficient_attention(token, token, token)
    except Exception as error:  # whatever a build for another torch or card raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ""
