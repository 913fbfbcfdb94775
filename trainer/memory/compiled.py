"""Regional compilation: ``torch.compile`` of the denoiser's repeated blocks, adapters included."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from trainer.errors import InputError

COMPILERS = ("c++", "g++", "clang++", "cl")
LIMIT = 64
"""Versions of one block's code that are kept: blocks of a few widths, each at the sizes of several buckets."""


def compile_blocks(unet: Any, device: torch.device, backend: str = "inductor") -> None:
    """Compile every transformer block in place; names, adapters and checkpoints stay as they are.

    One block's code serves all blocks of the same shapes, so that this takes a fraction of compiling the whole model.

    Raises:
        InputError: the device's compiler is not here.
    """
    check_compiler(device)
    torch._dynamo.config.recompile_limit = max(LIMIT, torch._dynamo.config.recompile_limit)
    unet.compile_repeated_blocks(backend=backend)


def check_compiler(device: torch.device) -> None:
    """Raise ``InputError`` where ``torch.compile`` has nothing to generate code with."""
    off = "or set device.compile = false"
    if device.type == "cpu" and not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        raise InputError("device.compile needs a C++ compiler on a CPU, and none is on the PATH", f"install g++, {off}")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("device.compile needs triton on a GPU, which is not installed", f"install triton, {off}")


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, blocks run as they were written: other sizes and modes, as in previews, would each be compiled for a few calls."""
    with torch.compiler.set_stance("force_eager"):
        yield
