"""What a run needs, from shapes alone: weights by counting, activations from one step on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morelora import AdapterSet, inject, resolve
from trainer.conditioning import Size
from trainer.config import Config
from trainer.estimate.tracker import peak_of
from trainer.memory.quantized import is_packed
from trainer.models.parts import build_empty
from trainer.models.registry import DTYPES
from trainer.models.source import Source

META, CPU = torch.device("meta"), torch.device("cpu")
OPTIMIZER_NUMBERS = 2
"""Numbers that an optimiser keeps for each trained one; AdamW's two moments stand for all."""
BITS = {"int8": 8.0, "nf4": 4.5}
DOUBLE_BITS = 4.13
TOKENS = 77


@dataclass(frozen=True)
class Need:
    """Bytes on the device, beside the program itself. The peak is reached in a step, or where pictures are cached or shown."""

    weights: int
    trained: int
    """Adapters, their gradients and the optimiser's state."""
    activations: int
    pictures: int
    """The weights that rest in a step, and what one picture holds on its way through the VAE."""

    @property
    def total(self) -> int:
        return self.weights + self.trained + max(self.activations, self.pictures)


def predict(config: Config, source: Source, bucket: Size, device: torch.device) -> Need:
    """The need of a run whose largest bucket is ``bucket``. Reads no weight and computes no value."""
    models = empty_parts(source)
    weights = weight_bytes(config, models, device)
    pictures = weight_bytes(config, models, CPU) - weights + _picture_peak(config, models["vae"], source.pixel_factor, bucket)
    trained = {name: models[name] for name in _trained(config, models)}
    adapters = inject(trained, resolve(trained, config.adapter)) if trained else AdapterSet({}, {})
    encoders = [model for name, model in models.items() if _reads_text(name)] if config.reads_captions_live else []
    numbers = sum(parameter.numel() for parameter in adapters.parameters()) + _learn_words(config, encoders)
    if config.train.gradient_checkpointing:
        _checkpointed(models)
    for model in models.values():
        model.to(compute_dtype(config)).train()
    for _, adapter in adapters:
        adapter.float()
    latent = (bucket[0] // source.pixel_factor, bucket[1] // source.pixel_factor)
    step = partial(forward, config, encoders, models, latent)
    activations = peak_of(step, models.values())
    return Need(weights, 4 * numbers * (1 + OPTIMIZER_NUMBERS), activations, pictures)


def empty_parts(source: Source) -> dict[str, Any]:
    """Every part without memory."""
    return {name: build_empty(name, part.config).requires_grad_(False) for name, part in source.parts.items()}


def weight_bytes(config: Config, models: Mapping[str, nn.Module], device: torch.device) -> int:
    """Bytes of the frozen weights that are on the device while it trains, in the form that the settings ask for."""
    rests: set[str] = set()
    if config.device.offload and device.type != "cpu":
        rests = {"vae"} if config.reads_captions_live else {name for name in models if name != "unet"}
    return sum(_bytes(config, name, model) for name, model in models.items() if name not in rests)


def _bytes(config: Config, name: str, model: nn.Module) -> int:
    """The VAE is held in float32 and never quantised."""
    size = 4 if name == "vae" else DTYPES[config.model.dtype].itemsize
    total = sum(parameter.numel() for parameter in model.parameters()) * size
    if name == "vae":
        return total
    if config.device.quantize == "none":
        return total
    bits = DOUBLE_BITS if config.device.double_quantize else BITS[config.device.quantize]
    packed = sum(layer.weight.numel() for path, layer in model.named_modules() if is_packed(path, layer))
    return total - round(packed * (size - bits / 8))


@torch.no_grad()
def _picture_peak(config: Config, vae: Any, factor: int, bucket: Size) -> int:
    """What the VAE holds to encode one training picture, or to decode one preview, in float32."""
    side, channels = config.data.resolution, vae.config.latent_channels
    width, height = config.preview.width or side, config.preview.height or side
    pixels = torch.empty(1, 3, bucket[1], bucket[0], device=META)
    latents = torch.empty(1, channels, height // factor, width // factor, device=META)
    return max(peak_of(lambda: vae.encode(pixels).latent_dist.mean, [vae]), peak_of(lambda: vae.decode(latents).sample, [vae]))


def _trained(config: Config, models: Mapping[str, nn.Module]) -> list[str]:
    wanted = {"unet": config.train.unet, "vae": False}
    return [name for name in models if wanted.get(name, config.train.text_encoder)]


def _reads_text(name: str) -> bool:
    return name.startswith("text_encoder")


def _learn_words(config: Config, encoders: list[Any]) -> int:
    """Let gradients run from the embeddings on, where a word is trained; returns the numbers of its vectors."""
    if not config.embedding.vectors:
        return 0
    tables = [encoder.get_input_embeddings() for encoder in encoders]
    for table in tables:
        table.register_forward_hook(lambda module, arguments, output: output.requires_grad_())
    return config.embedding.vectors * sum(table.embedding_dim for table in tables)


def compute_dtype(config: Config) -> torch.dtype:
    """Of what the frozen layers give."""
    return DTYPES[config.model.dtype if config.train.precision == "fp32" else config.train.precision]


def _checkpointed(models: Mapping[str, Any]) -> None:
    """Without the random state, which the meta device has not."""
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    models["unet"].enable_gradient_checkpointing(again)
    for name, model in models.items():
        if _reads_text(name):
            model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})


def forward(config: Config, texts: list[Any], models: Mapping[str, Any], latent: Size) -> Tensor:
    """A loss of nothing but shapes, of one micro step; ``texts`` are the encoders that read captions in it."""
    unet, batch, dtype = models["unet"], config.train.batch_size, compute_dtype(config)
    make = partial(torch.empty, device=META, dtype=dtype)
    length = TOKENS * config.model.caption_chunks
    ids = torch.zeros(batch * config.model.caption_chunks, TOKENS, device=META, dtype=torch.long)
    states = sum((text(input_ids=_fitting(text, ids)).last_hidden_state.mean() for text in texts), make(()))
    condition = make(batch, length, unet.config.cross_attention_dim) + states
    added = None
    if "text_encoder_2" in models:
        width = models["text_encoder_2"].config.projection_dim
        added = {"text_embeds": make(batch, width), "time_ids": make(batch, 6)}
    noisy = make(batch, unet.config.in_channels, latent[1], latent[0])
    t = torch.zeros(batch, device=META)
    predicted = unet(noisy, t, encoder_hidden_states=condition, added_cond_kwargs=added).sample
    return predicted.float().square().mean()


def _fitting(text: Any, ids: Tensor) -> Tensor:
    """Token ids no longer than the encoder has positions for."""
    return ids[:, : text.config.max_position_embeddings]
