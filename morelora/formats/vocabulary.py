"""The layers of every Stable Diffusion model by name, for files that are read without a model.

A list that is wider than any one model (transformers of up to ten blocks, text encoders of up to 32 layers), so that a key of a
file finds its layer's name. Two resnets a block downwards and three upwards, as the original numbering has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from morelora.formats.names import ENDS, RESNET

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TRANSFORMER = (
    *(f"attn{n}.{leaf}" for n in (1, 2) for leaf in ATTENTION),
    *("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"),
)
TEXT = (
    *(f"self_attn.{leaf}_proj" for leaf in "qkv"),
    *("self_attn.out_proj", "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
)
LEVELS, BLOCKS, TEXT_LAYERS = 4, 10, 32


@cache
def layer_names() -> tuple[str, ...]:
    """Dotted names, ``unet.…``, ``text_encoder.…`` and ``text_encoder_2.…``."""
    text = [f"{encoder}.text_model.{path}" for encoder in ("text_encoder", "text_encoder_2") for path in _text()]
    return (*(f"unet.{path}" for path in _unet()), *text, "text_encoder_2.text_projection")


def _unet() -> Iterator[str]:
    yield from ENDS
    for level in range(LEVELS):
        yield from _block(f"down_blocks.{level}", 2, 2)
        yield f"down_blocks.{level}.downsamplers.0.conv"
        yield from _block(f"up_blocks.{level}", 3, 3)
        yield f"up_blocks.{level}.upsamplers.0.conv"
    yield from _block("mid_block", 2, 1)


def _block(name: str, resnets: int, attentions: int) -> Iterator[str]:
    for number in range(resnets):
        yield from (f"{name}.resnets.{number}.{leaf}" for leaf in RESNET)
    for number in range(attentions):
        attention = f"{name}.attentions.{number}"
        yield from (f"{attention}.{leaf}" for leaf in ("norm", "proj_in", "proj_out"))
        yield from (f"{attention}.transformer_blocks.{block}.{leaf}" for block in range(BLOCKS) for leaf in TRANSFORMER)


def _text() -> Iterator[str]:
    yield from (f"encoder.layers.{layer}.{leaf}" for layer in range(TEXT_LAYERS) for leaf in TEXT)
    yield from ("embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm")
