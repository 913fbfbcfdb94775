"""A model small enough for unit tests whose layers have the names of a diffusers UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """The four linear layers of attention, without the attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out[0](torch.tanh(self.to_q(x)) * torch.tanh(self.to_k(x)) + self.to_v(x))


class Resnet(nn.Module):
    """Two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.tanh(self.conv1(x)))


class TinyUNet(nn.Module):
    """``conv_in -> resnet -> attention -> conv_out`` over ``(B, 4, H, W)``."""

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.block = nn.Module()
        self.block.resnets = nn.ModuleList([Resnet(width)])
        self.block.transformer_blocks = nn.ModuleList([nn.Module()])
        self.block.transformer_blocks[0].norm1 = nn.LayerNorm(width)
        self.block.transformer_blocks[0].attn1 = Attention(width)
        self.conv_out = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block.resnets[0](self.conv_in(x))
        transformer = self.block.transformer_blocks[0]
        tokens = transformer.attn1(transformer.norm1(x.flatten(2).transpose(1, 2)))
        return self.conv_out(x + tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def latents(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(31))
