"""What a loaded base model offers to a run, whatever its family."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainer.conditioning import Frames, States
from trainer.diffusion.schedule import Schedule


class Bundle(ABC):
    """A base model in parts. A family's subclass says how captions condition it; everything else is shared."""

    family: ClassVar[str]
    """Name of the family: decides file keys and metadata."""

    def __init__(self, path: Path, pipeline: Any, schedule: Schedule) -> None:
        self.path = path
        self.pipeline = pipeline
        self.schedule = schedule
        self.unet: Any = pipeline.unet.requires_grad_(False)
        self.vae: Any = pipeline.vae.requires_grad_(False).float()
        self.device = torch.device("cpu")
        for encoder in self.text_encoders.values():
            encoder.requires_grad_(False)

    @property
    @abstractmethod
    def text_encoders(self) -> dict[str, nn.Module]:
        """Text encoders by the pipeline's name for them."""

    @abstractmethod
    def encode_text(self, captions: list[str]) -> States:
        """The denoiser's condition for captions, batch first, with gradients where they are wanted."""

    @abstractmethod
    def overflow(self, caption: str) -> str:
        """The part of a caption that the text encoder cannot see; empty if it sees all."""

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Tokens of a caption that the text encoder reads, with its start and end marks."""

    @torch.no_grad()
    def encode_text_ahead(self, captions: list[str]) -> States:
        """``encode_text`` for the cache: float32 on the CPU, without gradients."""
        states = self.encode_text(captions)
        return states.float().cpu() if isinstance(states, Tensor) else tuple(part.float().cpu() for part in states)

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass."""
        self.unet.enable_gradient_checkpointing()
        for encoder in self.text_encoders.values():
            encoder.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    @abstractmethod
    def file_family(self) -> Literal["sd1", "sd2", "sdxl", "pocket"]:
        """Whose names and marks an adapter file carries."""

    def components(self, unet: bool, text_encoder: bool) -> dict[str, nn.Module]:
        """The parts that adapters may go into, by name."""
        return ({"unet": self.unet} if unet else {}) | (self.text_encoders if text_encoder else {})

    def to(self, device: torch.device) -> Bundle:
        """Move everything to a device."""
        self.device = device
        self.pipeline.to(device)
        self.schedule = self.schedule.to(device)
        return self

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of pictures ``(B, 3, H, W)`` in ``-1 .. 1``, in the denoiser's scale.

        Always in float32: half precision overflows in some VAEs.
        """
        vae = self.vae
        posterior = vae.encode(pixels.to(self.device)).latent_dist
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        scale = vae.config.scaling_factor
        return ((posterior.mean - shift) * scale).cpu(), (posterior.std * scale).cpu()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in ``0 .. 1`` on the CPU from latents in the denoiser's scale; in float32."""
        vae = self.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        decoded = vae.decode(latents.float() / vae.config.scaling_factor + shift).sample
        return (decoded / 2 + 0.5).clamp(0, 1).cpu()

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, text: States, frames: Frames) -> Tensor:
        """The denoiser's prediction for ``x_t`` ``(B, C, h, w)``, timesteps ``(B,)``, ``encode_text``'s states, and frames."""

    def fingerprint(self, *parts: str) -> str:
        """sha256 over the weight files of the named sub-folders: the identity of encoders and of the base."""
        digest = hashlib.sha256()
        for part in parts:
            for file in sorted((self.path / part).glob("*.safetensors")):
                digest.update(part.encode() + file.name.encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()
