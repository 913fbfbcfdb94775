"""The frozen base in 8 or 4 bits, by bitsandbytes: linear layers of the denoiser and of the text encoders, in place.

int8        ``W = absmax_row / 127 * q``, one scale for each output row; the weight alone is stored so, ``x`` is not.
nf4         blocks of 64 numbers, ``W = absmax_block * code[q]`` with the 16 quantiles of a normal distribution.
double      the blocks' ``absmax``, less their mean, are stored in 8 bits themselves, in blocks of 256: 4.13 bits a weight
            instead of 4.5.
Sources     LLM.int8() arXiv 2208.07339; QLoRA arXiv 2305.14314, sections 2 and 3.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from morelora.quantized import QuantizedLinear
from trainer.config import DeviceConfig
from trainer.errors import InputError

BLOCK = 64
KEPT = ("time_embedding", "add_embedding", "time_emb_proj")
"""Layers of the timestep stay as they are: few weights, and an error of theirs shifts every position of every layer."""


def library() -> Any:
    """``bitsandbytes.functional``. Raises ``InputError`` with the line that installs it."""
    try:
        from bitsandbytes import functional
    except ImportError as error:
        raise InputError(
            f"device.quantize needs bitsandbytes, which cannot be imported here ({error})",
            f"install it with {sys.executable} -m pip install bitsandbytes, or set device.quantize = 'none'",
        ) from error
    return functional


class Int8Linear(QuantizedLinear):
    """See the module's docstring, int8."""

    packed: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, weight: Tensor) -> None:
        super().__init__(layer)
        taken = weight.to(torch.float16 if weight.is_cuda else torch.float32)  # what the library's kernels take on each
        packed, scale, _ = library().int8_vectorwise_quant(taken)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return (self.packed * (self.scale[:, None] / 127)).to(dtype)


class Nf4Linear(QuantizedLinear):
    """See the module's docstring, nf4."""

    def __init__(self, layer: nn.Linear, weight: Tensor, double: bool) -> None:
        super().__init__(layer)
        packed, state = library().quantize_4bit(weight.float(), blocksize=BLOCK, compress_statistics=double, quant_type="nf4")
        self.register_buffer("packed", packed)
        self.register_buffer("absmax", state.absmax)
        self.has_packed_scales = double
        if double:
            self.register_buffer("offset", state.offset)
            self.register_buffer("second_absmax", state.state2.absmax)
            self.register_buffer("second_code", state.state2.code)
            self.second_block = state.state2.blocksize

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """By the library's operators themselves, which ``torch.compile`` traces; its functions around them it does not."""
        operators, absmax = torch.ops.bitsandbytes, self.absmax
        if self.has_packed_scales:
            second = (self.second_absmax, self.second_code, self.second_block, torch.float32)
            absmax = operators.dequantize_blockwise(absmax, *second) + self.offset
        direct = dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32
        shape = (self.out_features, self.in_features)
        return operators.dequantize_4bit(self.packed, absmax, BLOCK, "nf4", shape, direct).to(dtype)


def quantize(model: nn.Module, config: DeviceConfig, device: torch.device) -> int:
    """Put quantised layers in the place of a model's linear ones, on ``device``; returns how many.

    One layer at a time is on the device in full, so that a model too large for it can be brought there.
    """
    layers = [(path, layer) for path, layer in model.named_modules() if is_packed(path, layer)]
    for path, layer in layers:
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _packed(layer, config, device))
    return len(layers)


def is_packed(path: str, layer: nn.Module) -> bool:
    """Whether a layer is one that ``quantize`` takes: linear, with an even number of inputs, which packing needs, and none of
    ``KEPT``."""
    return type(layer) is nn.Linear and layer.in_features % 2 == 0 and not any(name in path for name in KEPT)


def _packed(layer: nn.Linear, config: DeviceConfig, device: torch.device) -> QuantizedLinear:
    weight = layer.weight.detach().to(device)
    if config.quantize == "int8":
        return Int8Linear(layer, weight).to(device)
    return Nf4Linear(layer, weight, config.double_quantize).to(device)
