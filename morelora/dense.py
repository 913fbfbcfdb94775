"""A change of weight and bias by its numbers, as web UIs read it: ``diff``, ``diff_b``; of a norm ``w_norm``, ``b_norm``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morelora.adapter import Adapter, Tensors
from morelora.site import NormSite, Site


def leaf_names(site: Site) -> tuple[str, str]:
    """The leaf names of the weight's and the bias's difference."""
    return ("w_norm", "b_norm") if isinstance(site, NormSite) else ("diff", "diff_b")


def dense_tensors(adapter: Adapter, base: nn.Module) -> Tensors:
    """The adapter's change of ``base`` as dense differences, in float32 at least."""
    weight = _precise(base.weight)
    bias = None if base.bias is None else _precise(base.bias)
    shift = adapter.bias_delta(bias)
    of_weight, of_bias = leaf_names(adapter.site)
    tensors = {of_weight: adapter.delta(weight)}
    return tensors if shift is None else tensors | {of_bias: shift}


def _precise(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
