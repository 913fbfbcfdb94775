"""Stable Diffusion 1.x and 2.x, and every model in the same diffusers form, such as the pocket base.

Number of latent channels, widths, prediction type and prompt length are read from the model's own configs.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainer.conditioning import Frames, States
from trainer.models.bundle import Bundle


class StableDiffusion(Bundle):
    """One CLIP text encoder whose last hidden state conditions the UNet by cross attention."""

    family = "sd"

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.pipeline.text_encoder}

    @property
    def file_family(self) -> Literal["sd1", "sd2"]:
        """Stable Diffusion 2's text encoder is 1024 wide, 1's is 768; anything else is told as 1."""
        return "sd2" if self.unet.config.cross_attention_dim == 1024 else "sd1"

    def encode_text(self, captions: list[str]) -> Tensor:
        tokens = self.pipeline.tokenizer(
            captions, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        )
        return self.pipeline.text_encoder(tokens.input_ids.to(self.device))[0]

    def predict(self, noisy: Tensor, t: Tensor, text: States, frames: Frames) -> Tensor:
        dtype = self.unet.dtype
        return self.unet(noisy.to(dtype), t, encoder_hidden_states=text.to(self.device, dtype)).sample

    def overflow(self, caption: str) -> str:
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(caption, add_special_tokens=False).input_ids
        return tokenizer.decode(ids[self.max_length - 2 :]).strip()

    @property
    def max_length(self) -> int:
        return self.pipeline.tokenizer.model_max_length
