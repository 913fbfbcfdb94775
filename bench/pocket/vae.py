"""The picture codec: an AutoencoderKL between 64x64 pixels and an 8x8 grid of 24 numbers.

The latent code is not learnt but fixed first: the principal components of 8x8 patches, half whitened. So the U-Net can start
at once, an error in the latents is an error of about the same size in the picture, and styles nobody has seen survive.
The encoder learns to compute this code, the decoder learns to invert it and to add what a linear inverse must leave out.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .looks import GROUNDS, LOOKS, contours, over
from .loop import Job, train
from .pictures import load_work

CHANNELS = (16, 32, 64, 96)
LATENT_CHANNELS = 24
SCALING = 0.18215
PATCH = 8


def build_vae() -> AutoencoderKL:
    """A fresh codec of the ordinary Stable Diffusion kind, only narrow."""
    levels = len(CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=SCALING,
    )


class Images:
    """Endless training images: a random icon, on a random ground or in a random look, often recoloured."""

    def __init__(self, work: Path, seed: int) -> None:
        pictures = load_work(work)
        self.concepts = {name: pictures[name] for name in ("noto", "flat")}
        self.extra = pictures["extra"]
        self.random = np.random.default_rng(seed)

    def batch(self, count: int) -> Tensor:
        """`count` images as (count, 3, 64, 64), -1..1."""
        stack = np.stack([self._image() for _ in range(count)]).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(stack, np.float32)) * 2 - 1

    def _image(self) -> np.ndarray:
        roll = self.random.random()
        if roll < 0.25:
            look = LOOKS[self.random.choice(list(LOOKS))]
            return look.paint(self._pick(self.concepts[look.source]))
        pool = self.extra if roll < 0.5 else self.concepts["noto" if roll < 0.85 else "flat"]
        return self._recolour(self._pick(pool))

    def _pick(self, pool: np.ndarray) -> np.ndarray:
        return pool[self.random.integers(len(pool))].astype(np.float32) / 255

    def _recolour(self, picture: np.ndarray) -> np.ndarray:
        """Plain half of the time; else one recolouring, so that colour and shape are not tied in the latents."""
        roll, ground = self.random.random(), (1.0, 1.0, 1.0)
        if roll < 0.35:
            ground = list(GROUNDS.values())[self.random.integers(len(GROUNDS))]
        if roll > 0.75:
            ground = tuple(self.random.random(3))
        image = over(picture, ground)
        if roll > 0.6:
            image = _mixed(image, self.random)
        return image[:, ::-1] if self.random.random() < 0.3 else image


def _mixed(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One of: shuffled or negated channels, grey, a hard two-tone print, ink outlines."""
    kind = random.integers(5)
    if kind == 0:
        return image[..., random.permutation(3)]
    if kind == 1:
        return 1 - image
    if kind == 2:
        return image.mean(-1, keepdims=True).repeat(3, -1)
    if kind == 3:
        low, high = random.random(3) * 0.5, 0.4 + random.random(3) * 0.6
        tone = ((image.mean(-1, keepdims=True) - random.uniform(0.3, 0.7)) * 8 + 0.5).clip(0, 1)
        return low + tone * (high - low)
    line = contours(image).repeat(3, -1)
    return 1 - line if random.random() < 0.7 else line


def codec_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared and absolute error of the pixels, plus the absolute error of their gradients (keeps lines sharp)."""
    loss = 5 * F.mse_loss(output, target) + 0.5 * F.l1_loss(output, target)
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal to noise ratio per picture, dB, for images in 0..1."""
    return -10 * (output - target).square().flatten(1).mean(1).log10()


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode and decode images in 0..1."""
    parts = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mode()).sample for part in images.split(32)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def test_images(work: Path) -> dict[str, Tensor]:
    """A fixed fifth of the concepts in the own look and in two looks of which one is never trained on."""
    pictures, sets = load_work(work), {"noto": "noto", "flat": "flat", "ink (unseen)": "ink"}
    images = {}
    for name, source in sets.items():
        stack = np.stack([over(p.astype(np.float32) / 255) for p in pictures[source][::5]])
        images[name] = torch.from_numpy(stack.transpose(0, 3, 1, 2).copy())
    return images


def report_psnr(vae: AutoencoderKL, work: Path) -> str:
    """The mean reconstruction quality on the test images, as text."""
    tests = test_images(work)
    return "  ".join(f"{name} {psnr(reconstruct(vae, x), x).mean():.2f} dB" for name, x in tests.items())


class Code(nn.Module):
    """The linear code: patches -> components, each divided by the fourth root of its variance, mean variance one."""

    def __init__(self, mean: Tensor, components: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)

    @classmethod
    def fit(cls, images: Tensor) -> Code:
        """Principal components of the patches of `images`."""
        patches = F.pixel_unshuffle(images, PATCH).movedim(1, -1).flatten(0, 2)
        variances, vectors = torch.linalg.eigh(torch.cov(patches.T))
        variances, vectors = variances[-LATENT_CHANNELS:], vectors[:, -LATENT_CHANNELS:]
        factor = variances.pow(-0.25) / variances.sqrt().mean().sqrt()
        return cls(patches.mean(0), vectors * factor)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 64, 64) in -1..1 to scaled latents (N, 24, 8, 8)."""
        patches = F.pixel_unshuffle(images, PATCH).movedim(1, -1)
        return ((patches - self.mean) @ self.components).movedim(-1, 1)


def load_code(work: Path) -> Code:
    """The code of this work folder, fitted once on all looks and on recoloured icons."""
    kept = work / "code.safetensors"
    if not kept.exists():
        images = Images(work, seed=7)
        looks = torch.cat([look_images(work, look) for look in LOOKS])
        save_file(Code.fit(torch.cat([looks, images.batch(2000)])).state_dict(), kept)
    return Code(**load_file(kept))


def look_images(work: Path, look: str) -> Tensor:
    """Every concept in one look, (N, 3, 64, 64) in -1..1."""
    pictures = load_work(work)[LOOKS[look].source]
    stack = np.stack([LOOKS[look].paint(picture.astype(np.float32) / 255) for picture in pictures])
    return torch.from_numpy(stack.transpose(0, 3, 1, 2).copy()) * 2 - 1


def train_codec(work: Path, minutes: float, start: Path | None = None) -> None:
    """Train encoder and decoder beside each other; every checkpoint leaves the averaged codec in `work`/vae.

    `start`: another codec's folder, whose layers of the same shape are the starting point.
    """
    torch.manual_seed(0)
    vae, images, code = build_vae(), Images(work, seed=1), load_code(work)
    if start is not None:
        _borrow(vae, AutoencoderKL.from_pretrained(start))

    def loss() -> Tensor:
        batch = images.batch(8)
        target = code(batch)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.quant_conv(vae.encoder(batch))[:, :LATENT_CHANNELS].float()
            noisy = target + 0.2 * torch.rand(len(batch), 1, 1, 1) * torch.randn_like(target)
            mixed = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, noisy, latents.detach())
            output = vae.decode(mixed).sample
        return codec_loss(output.float(), batch) + F.mse_loss(latents, target)

    def keep(step: int) -> None:
        folded = fold_scaling(copy.deepcopy(vae).eval())
        folded.save_pretrained(work / "vae")
        print("  " + report_psnr(folded, work), flush=True)

    train(Job(vae, work / "vae.pt", minutes, peak=2e-3, decay=0.998, on_save=keep), loss)


def _borrow(vae: AutoencoderKL, other: AutoencoderKL) -> None:
    own = vae.state_dict()
    same = {k: v for k, v in other.state_dict().items() if k in own and own[k].shape == v.shape}
    vae.load_state_dict(same, strict=False)


@torch.no_grad()
def fold_scaling(vae: AutoencoderKL) -> AutoencoderKL:
    """Put SCALING into the 1x1 convolutions: latents * SCALING are then the code. Their variance becomes next to none."""
    moments, inverse = vae.quant_conv, vae.post_quant_conv
    moments.weight[:LATENT_CHANNELS] /= SCALING
    moments.bias[:LATENT_CHANNELS] /= SCALING
    moments.weight[LATENT_CHANNELS:] = 0
    moments.bias[LATENT_CHANNELS:] = -12
    inverse.weight *= SCALING
    return vae
