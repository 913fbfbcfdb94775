"""A layer's shape from its tensors in a file. What they leave open, its name and the model's family settle, or nothing does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from morelora.algorithms.glora import in_order
from morelora.dimensions import check_dimensions
from morelora.errors import AdapterError
from morelora.site import NormSite, Site

SPATIAL = re.compile(r"^unet\.(conv_in|conv_out|.*\.(conv1|conv2|(down|up)samplers\.\d+\.conv))$")
"""Layers with a 3x3 kernel in every Stable Diffusion model."""
POINTWISE = re.compile(r"^unet\..*\.conv_shortcut$")
"""Layers with a 1x1 kernel in every one."""
PROJECTION = re.compile(r"^unet\..*\.proj_(in|out)$")
"""Convolutions in SD 1.x, linear layers in the others."""
CONDITION = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text condition by family."""


def family_of(metadata: Mapping[str, str], layers: Mapping[str, Mapping[str, Tensor]]) -> str:
    """``sd1``, ``sd2``, ``sdxl``, ``pocket``, or nothing where neither text entries nor widths tell it."""
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    for family, mark, name in (
        ("sdxl", "sdxl", "stable-diffusion-xl"),
        ("sd2", "sd_v2", "stable-diffusion-v2"),
        ("sd1", "sd_v1", "stable-diffusion-v1"),
        ("pocket", "morelora_pocket", "morelora-pocket"),
    ):
        if version.startswith(mark) or architecture.startswith(name):
            return family
    if any(name.startswith(("text_encoder_2.", "unet.add_embedding.")) for name in layers):
        return "sdxl"
    widths = {columns(tensors) for name, tensors in layers.items() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    return next((family for width, family in CONDITION.items() if width in widths), "")


def columns(tensors: Mapping[str, Tensor]) -> int:
    """``c`` of a layer's tensors; 0 where they do not tell."""
    try:
        site = site_of("", tensors, "")
    except AdapterError:
        return 0
    return 0 if site is None else site.c


def site_of(name: str, tensors: Mapping[str, Tensor], family: str) -> Site | None:
    """The layer's shape, or None where neither tensors nor name tell it. Raises ``AdapterError`` where they are damaged."""
    check_dimensions(tensors)
    has_bias = bool(tensors.keys() & {"diff_b", "b_norm"})
    if "w_norm" in tensors or "b_norm" in tensors:
        return NormSite(tensors["w_norm" if "w_norm" in tensors else "b_norm"].numel(), 1, has_bias=has_bias)
    if "diff" in tensors and tensors["diff"].dim() > 1:
        return _site(tuple(tensors["diff"].shape), has_bias)
    if "lora_up.weight" in tensors and "lora_down.weight" in tensors:
        up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
        kernel = tuple(tensors.get("lora_mid.weight", down).shape[2:])
        return _site((up.shape[0], down.shape[1], *kernel), has_bias)
    if {"hada_t1", "hada_w1_a", "hada_w1_b"} <= tensors.keys():
        kernel = tuple(tensors["hada_t1"].shape[2:])
        return _site((tensors["hada_w1_a"].shape[1], tensors["hada_w1_b"].shape[1], *kernel), has_bias)
    if "a1.weight" in tensors:
        own = in_order(tensors)
        return _site((len(own["b1.weight"]), *own["b2.weight"].shape[1:]), has_bias)
    flat = _flat(tensors)
    if flat is None:
        return None
    if isinstance(flat, Site):
        return flat
    kernel = _kernel(name, tensors, flat[1], family)
    if kernel is None:
        return None
    return Site(flat[0], flat[1] // math.prod(kernel), (kernel[0], kernel[1]) if kernel else None, has_bias=has_bias)


def _site(shape: tuple[int, ...], has_bias: bool) -> Site:
    return Site(shape[0], shape[1], (shape[2], shape[3]) if len(shape) == 4 else None, has_bias=has_bias)


def _flat(tensors: Mapping[str, Tensor]) -> Site | tuple[int, int] | None:
    """``(m, c)`` of tensors that do not show the kernel, or the site of those that do."""
    if "hada_w1_a" in tensors and "hada_w1_b" in tensors:
        return tensors["hada_w1_a"].shape[0], tensors["hada_w1_b"].shape[1]
    rows = [tensors[leaf].shape[0] for leaf in ("lokr_w1", "lokr_w1_a") if leaf in tensors]
    columns = [tensors[leaf].shape[1] for leaf in ("lokr_w1", "lokr_w1_b") if leaf in tensors]
    if not rows or not columns:
        return None
    if {"lokr_t2", "lokr_w2_a", "lokr_w2_b"} <= tensors.keys():
        kernel = tuple(tensors["lokr_t2"].shape[2:])
        shape = (tensors["lokr_w2_a"].shape[1], tensors["lokr_w2_b"].shape[1], *kernel)
    elif "lokr_w2" in tensors:
        shape = tuple(tensors["lokr_w2"].shape)
    elif "lokr_w2_a" in tensors and "lokr_w2_b" in tensors:
        shape = (tensors["lokr_w2_a"].shape[0], tensors["lokr_w2_b"].shape[1])
    else:
        return None
    m, c = rows[0] * shape[0], columns[0] * shape[1]
    return _site((m, c, *shape[2:]), False) if len(shape) == 4 else (m, c)


def _kernel(name: str, tensors: Mapping[str, Tensor], c: int, family: str) -> tuple[int, ...] | None:
    """The kernel behind ``c`` columns: empty for a linear layer, None where it is not known."""
    scale = tensors.get("dora_scale")
    if scale is not None and scale.dim() == 4 and scale.shape[0] == 1 and c % scale.shape[1] == 0:
        side = math.isqrt(c // scale.shape[1])
        return (side, side) if side * side * scale.shape[1] == c else None
    if SPATIAL.match(name):
        return (3, 3) if c % 9 == 0 else None
    if POINTWISE.match(name):
        return (1, 1)
    if PROJECTION.match(name):
        return {"sd1": (1, 1), "pocket": (1, 1), "sd2": (), "sdxl": ()}.get(family)
    return ()
