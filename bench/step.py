"""A training step of one form on a UNet, for the benches of speed and memory."""

from __future__ import annotations

import copy
import os
import re
import weakref
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bench.peers import Form  # noqa: E402

POCKET = Path(__file__).parent.parent / "assets" / "pocket" / "unet"

WIDTHS: dict[str, dict[str, Any]] = {
    "pocket": {
        "block_out_channels": (80, 160), "layers_per_block": 1, "cross_attention_dim": 192, "attention_head_dim": 5,
        "in_channels": 24, "out_channels": 24, "norm_num_groups": 16,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    },
    "half": {"block_out_channels": (160, 320, 640, 640), "cross_attention_dim": 768},
    "sd15": {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
}  # fmt: skip
SHAPES = {"pocket": (8, 8), "half": (1, 16), "sd15": (1, 32)}
"""Batch and latent side by model."""


def build(name: str) -> Any:
    """The frozen UNet: the shipped one for ``pocket`` if it is there, else random weights of those widths."""
    from diffusers import UNet2DConditionModel

    if name == "pocket" and POCKET.exists():
        return UNet2DConditionModel.from_pretrained(POCKET, torch_dtype=torch.float32).requires_grad_(False)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**WIDTHS[name])
    unet = unet.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in unet.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.fill_(float(leaf == "weight"))
    return unet


def twin(model: Any) -> Any:
    """Another copy of the modules around the same parameters."""
    return copy.deepcopy(model, memo={id(p): p for p in model.parameters()})


class Step:
    """One form's training step."""

    def __init__(self, form: Form, frozen: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        layers = [path for path, _ in frozen.named_modules() if re.search(form.layers, path)]
        self.form = form
        self.model = twin(frozen).train()
        self.trained = form.install(self.model, layers)
        self.count = sum(p.numel() for p in self.trained.parameters)
        self.bias = self.model.conv_in.bias.requires_grad_()
        self.optimizer = torch.optim.AdamW([*self.trained.parameters, self.bias], lr=1e-9, fused=True)
        self.inputs = inputs

    def loss(self) -> Tensor:
        latents, text, target = self.inputs
        predicted = self.model(latents, 500, encoder_hidden_states=text).sample
        return nn.functional.mse_loss(predicted, target)

    def __call__(self) -> None:
        self.bias.requires_grad_()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def kept(self) -> int:
        """Bytes that autograd keeps for backward in storages that belong to no parameter or buffer."""
        self.bias.requires_grad_()
        parameters = {p.untyped_storage().data_ptr() for group in self.optimizer.param_groups for p in group["params"]}
        parameters |= {t.untyped_storage().data_ptr() for t in chain(self.model.parameters(), self.model.buffers())}
        alive: weakref.WeakSet[_Saved] = weakref.WeakSet()

        def pack(tensor: Tensor) -> _Saved:
            saved = _Saved(tensor)
            alive.add(saved)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            loss = self.loss()
        storages = {(of := saved.tensor.untyped_storage()).data_ptr(): of.nbytes() for saved in alive}
        del loss
        return sum(size for place, size in storages.items() if place not in parameters)


class _Saved:
    """A tensor that a node of the graph holds, for as long as there is the node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def inputs_for(model: Any, batch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, model.config.in_channels, side, side)
    latents, target = (torch.randn(shape, generator=generator) for _ in range(2))
    return latents, torch.randn(batch, 77, model.config.cross_attention_dim, generator=generator), target
