"""Stable Diffusion XL: two text encoders, a pooled text, and the frame that a picture was cut to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.conditioning import Frames, States
from trainer.models import text as texts
from trainer.models.bundle import Bundle


class StableDiffusionXL(Bundle):
    """The states of both text encoders side by side condition the UNet by cross attention; pooled text and frame, by its time.

    With ``clip_skip = s`` the states are those of layer ``n - s`` of ``n``, without the final layer norm (``s = 1``: the last
    layer but one, as the model was trained; diffusers' ``clip_skip`` is ``s - 1``). The pooled text is always the second
    encoder's last layer at the end mark, normed and projected; of a caption in several chunks, the first one's, as in sd-scripts
    and ComfyUI.
    Source: arXiv 2307.01952.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Configs from before transformers 4.31 find the end mark as the largest token; words that are added later are larger.
        texts.body(self.pipeline.text_encoder_2).eos_token_id = self.pipeline.tokenizer_2.eos_token_id

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"text_encoder": self.pipeline.text_encoder, "text_encoder_2": self.pipeline.text_encoder_2}

    def unread_layers(self, encoder: str) -> int:
        return self.clip_skip if encoder == "text_encoder" else 0

    def encode_text(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Hidden states ``(B, T, D1 + D2)`` and pooled text ``(B, P)``."""
        first, second = self.pipeline.text_encoder, self.pipeline.text_encoder_2
        one = first(self._tokens(captions, "tokenizer", first), output_hidden_states=True)
        two = second(self._tokens(captions, "tokenizer_2", second), output_hidden_states=True)
        hidden = torch.cat([out.hidden_states[-self.clip_skip - 1] for out in (one, two)], dim=-1)
        return texts.join_chunks(hidden, self.chunks), two.text_embeds[:: self.chunks]

    def prompt_arguments(self, prompts: list[str], negatives: list[str]) -> dict[str, Tensor]:
        hidden, pooled = self.encode_text(prompts)
        negative_hidden, negative_pooled = self.encode_text(negatives)
        return {
            "prompt_embeds": hidden,
            "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": negative_hidden,
            "negative_pooled_prompt_embeds": negative_pooled,
        }

    def predict(self, noisy: Tensor, t: Tensor, text: States, frames: Frames) -> Tensor:
        dtype = self.unet.dtype
        hidden, pooled = (part.to(self.device, dtype) for part in text)
        added = {"text_embeds": pooled, "time_ids": time_ids(frames).to(self.device, non_blocking=True)}
        return self.unet(noisy.to(dtype), t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample


def time_ids(frames: Frames) -> Tensor:
    """``(B, 6)``: original height and width, top and left of the crop, height and width of the target.

    In float32, since bfloat16 cannot tell 1024 from 1023.
    """
    width, height = frames.target
    rows = [
        (original_height, original_width, top, left, height, width)
        for (original_width, original_height), (left, top) in zip(frames.original, frames.crops, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float32)
