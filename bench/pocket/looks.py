"""Looks: pure functions from a premultiplied picture to a (64, 64, 3) image, 0..1.

`LOOKS` are what the base is trained on; each has its words for captions and its share of the draws.
`STYLES` are kept from the base: the measuring sticks of style adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

WHITE = (1.0, 1.0, 1.0)
GROUNDS: dict[str, tuple[float, float, float]] = {
    "blue": (0.25, 0.52, 0.90),
    "green": (0.35, 0.72, 0.38),
    "red": (0.86, 0.26, 0.24),
    "yellow": (0.99, 0.86, 0.33),
    "grey": (0.62, 0.62, 0.64),
    "pink": (0.97, 0.68, 0.80),
    "navy": (0.09, 0.13, 0.34),
    "black": (0.05, 0.05, 0.06),
}
Paint = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Look:
    """`words` follow the concept in a caption; `source` names the picture set; `share` weighs the training draws."""

    words: tuple[str, ...]
    source: str
    paint: Paint
    share: float


def over(picture: np.ndarray, ground: tuple[float, float, float] = WHITE) -> np.ndarray:
    """Lay a premultiplied picture on a plain ground."""
    return picture[..., :3] + (1 - picture[..., 3:]) * np.asarray(ground, np.float32)


def luminance(image: np.ndarray) -> np.ndarray:
    """Rec. 601 luma, (H, W, 1)."""
    return image @ np.asarray([[0.299], [0.587], [0.114]], np.float32)


def ramp(tone: np.ndarray, colours: list[tuple[float, float, float]]) -> np.ndarray:
    """Map a tone (H, W, 1) through evenly spaced colours, dark to light."""
    stops = np.linspace(0, 1, len(colours))
    planes = [np.interp(tone[..., 0], stops, [colour[c] for colour in colours]) for c in range(3)]
    return np.stack(planes, -1).astype(np.float32)


def contours(image: np.ndarray) -> np.ndarray:
    """Strength of the edges of an image, (H, W, 1), 0..1: the largest step between neighbours, over the colours.

    Neighbours are a 64th of the side away, so a line keeps its width in a larger rendering.
    """
    far = max(1, len(image) // 64)
    padded = np.pad(image, ((far, far), (far, far), (0, 0)), mode="edge")
    across = np.abs(padded[far:-far, 2 * far :] - padded[far:-far, : -2 * far])
    down = np.abs(padded[2 * far :, far:-far] - padded[: -2 * far, far:-far])
    return (np.maximum(across, down).max(-1, keepdims=True) * 1.6).clip(0, 1)


def _grey(picture: np.ndarray) -> np.ndarray:
    return luminance(over(picture)).repeat(3, -1)


def _sepia(picture: np.ndarray) -> np.ndarray:
    return ramp(luminance(over(picture)), [(0.15, 0.08, 0.02), (0.66, 0.47, 0.28), (1.0, 0.95, 0.82)])


def _negative(picture: np.ndarray) -> np.ndarray:
    return 1 - over(picture)


def _pixel(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray((over(picture) * 255).round().astype(np.uint8)).resize((16, 16), Image.BOX)
    return np.asarray(small.resize((64, 64), Image.NEAREST), np.float32) / 255


def _swapped(picture: np.ndarray) -> np.ndarray:
    return over(picture)[..., [2, 0, 1]]


def _pastel(picture: np.ndarray) -> np.ndarray:
    return 0.45 * over(picture) + 0.55


def _dark(picture: np.ndarray) -> np.ndarray:
    return 0.42 * over(picture)


def _poster(picture: np.ndarray) -> np.ndarray:
    return (over(picture) * 2.0).round() / 2.0


def _edge(picture: np.ndarray) -> np.ndarray:
    return (1 - contours(over(picture))).repeat(3, -1)


def _comic(picture: np.ndarray) -> np.ndarray:
    image = over(picture)
    return _saturated(image, 1.35) * (1 - contours(image))


def _chalk(picture: np.ndarray) -> np.ndarray:
    board = np.asarray((0.13, 0.28, 0.20), np.float32)
    return board + contours(over(picture)) * (np.asarray((0.95, 0.95, 0.88), np.float32) - board)


def _saturated(image: np.ndarray, factor: float) -> np.ndarray:
    tone = luminance(image)
    return (tone + (image - tone) * factor).clip(0, 1)


def _on(ground: str) -> Paint:
    return lambda picture: over(picture, GROUNDS[ground])


def _looks() -> dict[str, Look]:
    looks = {"noto": Look((), "noto", over, 0.24), "flat": Look(("flat look",), "flat", over, 0.14)}
    for ground in GROUNDS:
        looks[f"noto on {ground}"] = Look((f"on {ground}",), "noto", _on(ground), 0.025)
        looks[f"flat on {ground}"] = Look(("flat look", f"on {ground}"), "flat", _on(ground), 0.0125)
    computed = {"grey": _grey, "sepia": _sepia, "negative": _negative, "pixel": _pixel, "swapped": _swapped}
    computed |= {"pastel": _pastel, "dark": _dark, "poster": _poster, "edge": _edge, "comic": _comic, "chalk": _chalk}
    for name, paint in computed.items():
        looks[name] = Look((f"{name} look",), "noto", paint, 0.029)
    return looks


def _duotone(picture: np.ndarray) -> np.ndarray:
    """A print in indigo and coral ink on cream paper, from the tones of the base's own look."""
    return ramp(luminance(over(picture)), [(0.14, 0.10, 0.38), (0.93, 0.36, 0.34), (0.99, 0.95, 0.86)])


def _blueprint(picture: np.ndarray) -> np.ndarray:
    """White drawing on navy: the contours, and a little of the light, of the base's own look."""
    image = over(picture)
    ink = np.maximum(contours(image), 0.45 * (1 - luminance(image)))
    return ramp(ink, [(0.06, 0.16, 0.42), (0.96, 0.98, 1.0)])


LOOKS: dict[str, Look] = _looks()
STYLES: dict[str, Look] = {
    "duotone": Look((), "noto", _duotone, 0.0),
    "ink": Look((), "ink", over, 0.0),
    "blueprint": Look((), "noto", _blueprint, 0.0),
}
