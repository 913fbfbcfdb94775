"""What a loaded base model offers to a run, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.conditioning import Frames, States
from trainer.config import ModelConfig
from trainer.diffusion.schedule import Schedule
from trainer.errors import InputError
from trainer.models import text
from trainer.models.parts import fingerprint
from trainer.models.source import Family, Source
from trainer.models.weights import sha256


class Bundle(ABC):
    """A base model in parts. A family's subclass says how captions condition it; everything else is shared."""

    def __init__(self, source: Source, pipeline: Any, schedule: Schedule, config: ModelConfig) -> None:
        self.source, self.pipeline, self.schedule = source, pipeline, schedule
        self.path = source.path
        self.clip_skip, self.chunks = config.clip_skip, config.caption_chunks
        self.notes: list[str] = []
        """What the plan should say of the base model."""
        self.unet: Any = pipeline.unet.requires_grad_(False)
        self.vae: Any = pipeline.vae.requires_grad_(False).float()
        self.device = torch.device("cpu")
        for name, encoder in self.text_encoders.items():
            encoder.requires_grad_(False)
            self._check_clip_skip(name, encoder)

    @property
    def family(self) -> Family:
        """Decides file keys and metadata."""
        return self.source.family

    @property
    @abstractmethod
    def text_encoders(self) -> dict[str, nn.Module]:
        """Text encoders by the pipeline's name for them."""

    @abstractmethod
    def encode_text(self, captions: list[str]) -> States:
        """The denoiser's condition for captions, batch first, with gradients where they are wanted."""

    @abstractmethod
    def unread_layers(self, encoder: str) -> int:
        """Last layers of a text encoder whose output nothing reads (clip skip): an adapter there would learn nothing."""

    @abstractmethod
    def prompt_arguments(self, prompts: list[str], negatives: list[str]) -> dict[str, Tensor]:
        """Prompts encoded as in training, under the names of the pipeline's arguments."""

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, text: States, frames: Frames) -> Tensor:
        """The denoiser's prediction for ``x_t`` ``(B, C, h, w)``, timesteps ``(B,)``, ``encode_text``'s states, and frames."""

    def overflow(self, caption: str) -> str:
        """The part of a caption that the text encoders cannot see; empty if they see all."""
        return text.overflow(self.pipeline.tokenizer, caption, self.chunks)

    @property
    def max_length(self) -> int:
        """Tokens of a caption that the text encoders read, with a start and an end mark."""
        return text.length(self.pipeline.tokenizer, self.chunks)

    @torch.no_grad()
    def encode_text_ahead(self, captions: list[str]) -> States:
        """``encode_text`` for the cache: float32 on the CPU, without gradients."""
        states = self.encode_text(captions)
        return states.float().cpu() if isinstance(states, Tensor) else tuple(part.float().cpu() for part in states)

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass."""
        self.unet.enable_gradient_checkpointing()
        for encoder in self.text_encoders.values():
            encoder.activation_checkpointing_enable({"use_reentrant": False})

    def components(self, unet: bool, text_encoder: bool) -> dict[str, nn.Module]:
        """The parts that adapters may go into, by name."""
        return ({"unet": self.unet} if unet else {}) | (self.text_encoders if text_encoder else {})

    def is_read(self, layer: str) -> bool:
        """Whether a layer, by its dotted name with its component, has any effect on the condition."""
        component, _, path = layer.partition(".")
        number = text.layer_number(path) if component in self.text_encoders else None
        if number is None:
            return True
        return number < text.layer_count(self.text_encoders[component]) - self.unread_layers(component)

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
        posterior = self.vae.encode(pixels.to(self.device)).latent_dist
        shift, scale = self._latent_scale
        return ((posterior.mean - shift) * scale).cpu(), (posterior.std * scale).cpu()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in ``0 .. 1`` on the CPU from latents in the denoiser's scale; in float32."""
        shift, scale = self._latent_scale
        decoded = self.vae.decode(latents.float() / scale + shift).sample
        return (decoded / 2 + 0.5).clamp(0, 1).cpu()

    def fingerprint(self, *parts: str) -> str:
        """sha256 over the weight files of the named parts: the identity of encoders and of the base."""
        return fingerprint(self.source.parts[part] for part in parts)

    @property
    def latents_fingerprint(self) -> str:
        """The identity of ``encode_pixels``: the VAE's weights and the denoiser's scale, which its config has."""
        return f"{self.fingerprint('vae')}, {self._latent_scale}"

    @property
    def _latent_scale(self) -> tuple[float, float]:
        """``(shift, scale)``: the denoiser's latents are ``(the VAE's - shift) * scale``."""
        config = self.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    @property
    def base_hash(self) -> str:
        """What files name the base by: a single file's own sha256, or the fingerprint of a folder's weights."""
        return sha256(self.path) if self.source.is_file else self.fingerprint("unet", "vae", *self.text_encoders)

    def _tokens(self, captions: Sequence[str], tokenizer: str, encoder: Any) -> Tensor:
        """Rows of tokens on the text encoder's device."""
        return text.token_rows(getattr(self.pipeline, tokenizer), captions, self.chunks).to(encoder.device)

    def _check_clip_skip(self, name: str, encoder: nn.Module) -> None:
        layers, unread = text.layer_count(encoder), self.unread_layers(name)
        if unread >= layers:
            raise InputError(
                f"model.clip_skip = {self.clip_skip} leaves nothing of the {name}, which has {layers} layers",
                "use a smaller model.clip_skip: 1 is the family's usual layer, 2 is common for anime models of SD 1.x",
            )
