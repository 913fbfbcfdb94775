"""Stable Diffusion 1.x and 2.x, and every model in the same diffusers form, such as the pocket base.

Number of latent channels, widths, prediction type and prompt length are read from the model's own configs.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainer.conditioning import Frames, States
from trainer.models import text as texts
from trainer.models.bundle import Bundle


class StableDiffusion(Bundle):
    """One CLIP text encoder whose hidden states condition the UNet by cross attention.

    With ``clip_skip = s`` the states are those of layer ``n - s + 1`` of ``n``, through the final layer norm (``s = 1``: the last
    layer's). Stable Diffusion 2's usual layer is OpenCLIP's last but one; the model holds only the layers up to there, and ``s``
    counts from it. diffusers' ``clip_skip`` is ``s - 1``.
    """

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.pipeline.text_encoder}

    def unread_layers(self, encoder: str) -> int:
        return self.clip_skip - 1

    def encode_text(self, captions: list[str]) -> Tensor:
        encoder = self.pipeline.text_encoder
        tokens = self._tokens(captions, "tokenizer", encoder)
        if self.clip_skip == 1:
            states = encoder(tokens).last_hidden_state
        else:
            hidden = encoder(tokens, output_hidden_states=True).hidden_states
            states = texts.body(encoder).final_layer_norm(hidden[-self.clip_skip])
        return texts.join_chunks(states, self.chunks)

    def prompt_arguments(self, prompts: list[str], negatives: list[str]) -> dict[str, Tensor]:
        return {"prompt_embeds": self.encode_text(prompts), "negative_prompt_embeds": self.encode_text(negatives)}

    def predict(self, noisy: Tensor, t: Tensor, text: States, frames: Frames) -> Tensor:
        dtype = self.unet.dtype
        return self.unet(noisy.to(dtype), t, encoder_hidden_states=text.to(self.device, dtype)).sample
