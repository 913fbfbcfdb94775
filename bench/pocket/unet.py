"""The denoiser and the text encoder, trained together on the latents of every concept in every look.

Velocity prediction; the loss weight min(snr + 1, 5) / (snr + 1) keeps the noisiest steps at weight one, because that is
where text alone must choose the picture. The figure to watch is the error of x0 predicted at t = 980.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import LENGTH, Captions, plain_caption, save_tokenizer
from .concepts import all_concepts
from .looks import LOOKS
from .loop import Job, resumed_step, train
from .vae import LATENT_CHANNELS, load_code, look_images

CHANNELS = (80, 160)
WIDTH = 192  # of the text encoder
BATCH = 24
SKEW = 0.6  # below one: more draws of noisy times, where the text decides
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = {"noto": 0.65, "flat": 0.35}
FOCUS = 0.6  # extra share of the plain looks at the start: words are learnt on them, the other looks afterwards
FOCUS_STEPS = 4000  # the focus falls to nothing over these steps
WATCHED = ("noto", "flat", "noto on red", "flat on green", "negative", "edge")


def build_unet() -> UNet2DConditionModel:
    """A two-level U-Net with cross-attention everywhere; `attention_head_dim` is the number of heads, as in SD 1.x."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=5,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder over the captions' own vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Denoiser(nn.Module):
    """The two trained parts as one module: captions and noisy latents in, velocity out."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.unet, self.text = build_unet(), build_text_encoder(tokenizer)
        nn.init.normal_(self.text.get_input_embeddings().weight, std=0.1)

    def forward(self, noisy: Tensor, times: Tensor, captions: list[str]) -> Tensor:
        """Predicted velocity."""
        tokens = self.tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
        return self.unet(noisy, times, self.text(tokens).last_hidden_state).sample


class Latents:
    """Latents of every look of every concept, encoded once, and the draws from them."""

    def __init__(self, work: Path, seed: int) -> None:
        self.looks = list(LOOKS)
        self.table = encode_looks(work)
        self.captions = Captions(seed)
        self.random = np.random.default_rng(seed)
        shares = np.asarray([look.share for look in LOOKS.values()])
        self.shares = shares / shares.sum()
        self.plain = np.asarray([PLAIN.get(name, 0.0) for name in LOOKS])

    def draw(self, count: int, focus: float = 0.0) -> tuple[Tensor, list[str]]:
        """`count` random latents with captions; `focus` moves that share of the draws to the plain looks."""
        looks = self.random.choice(len(self.looks), count, p=focus * self.plain + (1 - focus) * self.shares)
        concepts = self.random.integers(self.table.shape[1], size=count)
        captions = [self.captions.draw(c, self.looks[k]) for k, c in zip(looks, concepts, strict=True)]
        return self.table[looks, concepts], captions


@torch.no_grad()
def encode_looks(work: Path) -> Tensor:
    """(looks, concepts, channels, 8, 8) latents by the fixed code; kept in `work`/latents.pt."""
    kept = work / "latents.pt"
    if kept.exists():
        return torch.load(kept)
    code = load_code(work)
    table = torch.stack([code(look_images(work, look)) for look in LOOKS])
    torch.save(table, kept)
    return table


class Diffusion:
    """Noise schedule: corrupt latents, and the velocity and weight that go with a time."""

    def __init__(self) -> None:
        self.alphas = DDPMScheduler(**BETAS).alphas_cumprod

    def corrupt(self, clean: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, velocity target, loss weight."""
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        snr = self.alphas[times] / (1 - self.alphas[times])
        weight = (snr + 1).clamp(max=5) / (snr + 1)
        return signal * clean + spread * noise, signal * noise - spread * clean, weight

    def clean(self, noisy: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
        """The x0 that a velocity stands for."""
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity


def stratified_times(count: int) -> Tensor:
    """One time from each of `count` equally likely parts of 0..999, shuffled."""
    return (((torch.randperm(count) + torch.rand(count)) / count).pow(SKEW) * 1000).long().clamp(max=999)


@torch.no_grad()
def text_errors(model: Denoiser, table: Tensor, looks: tuple[str, ...] = WATCHED, time: int = 980) -> dict[str, float]:
    """Mean squared error of x0 predicted from almost pure noise, per look: does the text choose the picture?"""
    diffusion, generator, errors = Diffusion(), torch.Generator().manual_seed(5), {}
    names = list(LOOKS)
    for look in looks:
        clean = table[names.index(look)][::2]
        times = torch.full((len(clean),), time)
        alpha = diffusion.alphas[time]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * torch.randn(clean.shape, generator=generator)
        captions = [plain_caption(c, look) for c in range(0, len(all_concepts()), 2)]
        guess = diffusion.clean(noisy, model(noisy, times, captions), times)
        errors[look] = (guess - clean).square().mean().item()
    return errors


def train_unet(work: Path, minutes: float) -> None:
    """Train U-Net and text encoder; each checkpoint also leaves the averaged weights in `work`/denoiser."""
    torch.manual_seed(3)
    model = Denoiser(save_tokenizer(work / "tokenizer"))
    latents, diffusion = Latents(work, seed=4), Diffusion()
    steps = itertools.count(resumed_step(work / "unet.pt"))

    def loss() -> Tensor:
        focus = FOCUS * max(0.0, min(1.0, 2 - 2 * next(steps) / FOCUS_STEPS))
        clean, captions = latents.draw(BATCH, focus)
        times = stratified_times(BATCH)
        noisy, velocity, weight = diffusion.corrupt(clean, times)
        error = (model(noisy, times, captions) - velocity).square().mean((1, 2, 3))
        return (error * weight).mean()

    def keep(step: int) -> None:
        errors = text_errors(model, latents.table)
        print("  t=980 " + "  ".join(f"{look} {error:.3f}" for look, error in errors.items()), flush=True)
        model.unet.save_pretrained(work / "denoiser" / "unet")
        model.text.save_pretrained(work / "denoiser" / "text_encoder")

    train(Job(model, work / "unet.pt", minutes, peak=1.2e-3, decay=0.998, on_save=keep), loss)
