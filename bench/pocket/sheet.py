"""A contact sheet of the base: every concept once in its own look, then some concepts in every look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from .captions import plain_caption
from .concepts import all_concepts
from .looks import LOOKS
from .sampling import load_pipeline, sample

COLUMNS = 29
STEPS = 15
SHOWN = ("fox", "car", "guitar")
SHEET = Path(__file__).parents[2] / "docs" / "pocket-sheet.png"


def grid(images: Tensor, columns: int) -> np.ndarray:
    """Pictures side by side, row by row, as uint8."""
    tiles = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * columns, *tiles.shape[1:]), 255, np.uint8)
    sheet[: len(tiles)] = tiles
    side = tiles.shape[1]
    return sheet.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def write_sheet(folder: Path, path: Path = SHEET) -> None:
    """Sample and write docs/pocket-sheet.png."""
    pipeline, names = load_pipeline(folder), [concept.name for concept in all_concepts()]
    own = [plain_caption(i, "noto") for i in range(len(names))]
    looks = [plain_caption(names.index(name), look) for name in SHOWN for look in LOOKS]
    parts = [grid(sample(pipeline, own, steps=STEPS), COLUMNS), grid(sample(pipeline, looks, seed=1000, steps=STEPS), len(LOOKS))]
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(p, ((0, 16), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {len(own)} concepts in the own look, then {', '.join(SHOWN)} in all {len(LOOKS)} looks")
