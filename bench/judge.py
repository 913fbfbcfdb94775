"""The judge of pictures: which concept, which style, how far from the true picture.

Two small networks trained on real pictures only, never on samples of the base (recipe: bench/pocket/judging.py):
`judge = Judge.load()`, then `concept_ranks`, `style_probs`, `distance`. Images are (N, 3, 64, 64) tensors in 0..1.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[1] / "assets" / "judge"
SEEN = 32  # pixels a side that the networks look at


class Eye(nn.Module):
    """A plain convolutional classifier of images, seen at 32x32."""

    def __init__(self, classes: list[str], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.classes, self.widths = classes, widths
        layers, last = [], 3
        for width in widths:
            layers += [nn.Conv2d(last, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            last = width
        self.features = nn.Sequential(*layers)
        side = SEEN >> len(widths)
        self.head = nn.Linear(last * side * side, len(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, classes)."""
        small = F.interpolate(images, size=(SEEN, SEEN), mode="area")
        return self.head(self.features(small * 2 - 1).flatten(1))

    def save(self, path: Path) -> None:
        """Write fp16 weights; names of the classes and widths go into the header."""
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"classes": "|".join(self.classes), "widths": ",".join(map(str, self.widths))}
        save_file({k: _half(v) for k, v in self.state_dict().items()}, path, metadata=header)

    @classmethod
    def load(cls, path: Path) -> Eye:
        """Read what `save` wrote, ready to judge in fp32."""
        with safe_open(path, "pt") as file:
            header = file.metadata()
        eye = cls(header["classes"].split("|"), tuple(int(w) for w in header["widths"].split(",")))
        eye.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
        return eye.eval()


class Judge:
    """The concept network and the style network together."""

    def __init__(self, concept: Eye, style: Eye) -> None:
        self.concept, self.style = concept, style

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> Judge:
        """The shipped judge."""
        return cls(Eye.load(folder / "concept.safetensors"), Eye.load(folder / "style.safetensors"))

    @property
    def concepts(self) -> list[str]:
        """Names of the concepts; the position is the concept's number."""
        return self.concept.classes

    @property
    def styles(self) -> list[str]:
        """Names of the styles that `style_probs` tells apart."""
        return self.style.classes

    @torch.no_grad()
    def concept_ranks(self, images: Tensor, concept_ids: Tensor) -> Tensor:
        """Rank of the right concept for each image, 1 = first; (N,) integers."""
        logits = self.concept(images.float().clamp(0, 1))
        right = logits.gather(1, concept_ids.view(-1, 1))
        return (logits > right).sum(1) + 1

    @torch.no_grad()
    def style_probs(self, images: Tensor) -> dict[str, Tensor]:
        """Probability of every style for each image: {style: (N,)}."""
        probs = self.style(images.float().clamp(0, 1)).softmax(1)
        return dict(zip(self.styles, probs.T, strict=True))

    @staticmethod
    def distance(images: Tensor, truth: Tensor) -> Tensor:
        """Root mean squared difference at 16x16 pixels, per image: blind to softness, not to colour and place."""
        small = [F.interpolate(x.float(), size=(16, 16), mode="area") for x in (images, truth)]
        return (small[0] - small[1]).square().flatten(1).mean(1).sqrt()


def _half(tensor: Tensor) -> Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
