"""The one cast from float32 to a file's precision."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from morelora.errors import NonFiniteTensorError

KEPT_IN_FLOAT32 = (
    ".alpha",
    ".dora_scale",
    ".rescale",
    ".ssf_scale",
    ".lora_magnitude_vector",
    ".string_to_param.*",
    ".clip_l",
    ".clip_g",
)
"""Magnitudes stand for the whole weight: rounding them to 16 bits would cost as much as the change itself. Vectors are few."""
LOSS = 1e-3
"""Relative change of a tensor that rounding may make."""
PAIRS = (
    (".lora_up.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".hada_w1_a", ".hada_w1_b"),
    (".hada_w2_a", ".hada_w2_b"),
    (".lokr_w2_a", ".lokr_w2_b"),
    (".lokr_w2", ".lokr_w1"),
    (".a2.weight", ".a1.weight"),
    (".b2.weight", ".b1.weight"),
)
"""Tensors whose product alone matters."""


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors in ``dtype``, each in its own memory on the CPU.

    For float16, factors of very different size are first brought to the same size by powers of two, which changes their
    product by no bit: below 6e-5 float16 loses precision, and factors that start at zero stay small. What is too small for it
    all the same, such as a barely trained difference of a whole weight, stays in float32.

    Raises:
        NonFiniteTensorError: a tensor is NaN or infinite, before the cast or after it; the message names it.
    """
    tensors = {key: tensor.detach() for key, tensor in tensors.items()}
    if dtype == torch.float16:
        tensors = _balanced(tensors)
    out = {}
    for key, tensor in tensors.items():
        own = torch.float32 if key.endswith(KEPT_IN_FLOAT32) or _is_too_small(tensor, dtype) else dtype
        out[key] = tensor.to("cpu", own, copy=True).contiguous()
        if not torch.isfinite(out[key]).all():
            was_finite = bool(torch.isfinite(tensor).all())
            reason = f"is too large for {own}: choose bf16 or fp32" if was_finite else "holds NaN or infinite values"
            raise NonFiniteTensorError(f"{key} {reason}")
    return out


def _is_too_small(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether float16 would change a tensor by more than a thousandth, which without numbers below 6e-5 it never does."""
    if dtype != torch.float16 or not 0 < float(tensor.abs().max()) < 1:
        return False
    return bool((tensor - tensor.to(dtype)).norm() > LOSS * tensor.norm())


def _balanced(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = dict(tensors)
    for small, large in PAIRS:
        for key in [key for key in out if key.endswith(small)]:
            partner = key.removesuffix(small) + large
            if partner in out:
                factor = _balance(out[key], out[partner])
                out[key], out[partner] = out[key] * factor, out[partner] / factor
    return out


def _balance(first: Tensor, second: Tensor) -> float:
    """The power of two by which ``first`` is to be multiplied and ``second`` divided to make their largest entries alike."""
    sizes = [float(tensor.abs().max()) for tensor in (first, second)]
    if not all(0 < size < math.inf for size in sizes):
        return 1.0
    return 2.0 ** round(math.log2(sizes[1] / sizes[0]) / 2)
