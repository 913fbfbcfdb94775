"""WD14 taggers: booru tags with probabilities, from ``model.onnx`` and ``selected_tags.csv``.

The picture is put on a white square, resized (bicubic) to the model's size, and given as ``[1, side, side, 3]`` float32, blue
first, in 0 .. 255; the model answers with the probability of every tag, in the order of the table.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.images import Pixels
from trainer.errors import InputError

RATING = "9"
"""Category of the tags that only rate a picture; they are left out."""
CHARACTER, SURE = "4", 0.85
"""Category of names of characters, and the least probability of one: a wrong name does more harm than a wrong word."""
FACE = 3
"""Tags of at most so many letters are faces such as ``^_^``, whose underscore is no space."""


class Wd14:
    """A tagger on the CPU. Raises ``InputError`` where onnxruntime is absent, or the folder is not whole."""

    def __init__(self, folder: Path, threshold: float) -> None:
        self.threshold = threshold
        self.tags = _read_tags(folder / "selected_tags.csv")
        self.session = _open(folder / "model.onnx")
        self.input = self.session.get_inputs()[0]
        shape = list(self.input.shape)
        if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
            raise InputError(
                f"{folder / 'model.onnx'} takes {shape}, not pictures as WD14 taggers do ([batch, side, side, 3])",
                "give the folder of a WD14 tagger",
            )
        self.side = shape[1]

    def describe(self, pixels: Pixels) -> str:
        """The tags that are likely enough, the likeliest first."""
        (probabilities,) = self.session.run(None, {self.input.name: prepare(pixels, self.side)})[:1]
        if probabilities.shape[-1] != len(self.tags):
            raise InputError(
                f"the tagger gives {probabilities.shape[-1]} probabilities, but selected_tags.csv has {len(self.tags)} tags",
                "take both files from the same model",
            )
        likely = sorted(zip(probabilities[0].tolist(), self.tags, strict=True), key=lambda pair: -pair[0])
        return ", ".join(readable(name) for probability, (name, category) in likely if self._counts(probability, category))

    def _counts(self, probability: float, category: str) -> bool:
        return category != RATING and probability >= (max(SURE, self.threshold) if category == CHARACTER else self.threshold)


def prepare(pixels: Pixels, side: int) -> NDArray[np.float32]:
    """``[1, side, side, 3]``: on a white square, centred, resized, blue first."""
    image = Image.fromarray(pixels)
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    if longer != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, np.float32)[None, ..., ::-1])


def readable(tag: str) -> str:
    """``red_fox`` -> ``red fox``; faces stay."""
    return tag if len(tag) <= FACE else tag.replace("_", " ")


def _read_tags(file: Path) -> list[tuple[str, str]]:
    """Name and category of each tag."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [(row["name"], row["category"]) for row in csv.DictReader(stream)]
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing", "put it beside model.onnx: both belong to the tagger") from error
    except (KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no table of tags: it needs the columns name and category", "download it again") from error


def _open(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "a WD14 tagger needs onnxruntime, which is not installed", f"{sys.executable} -m pip install onnxruntime==1.32.0"
        ) from error
    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds of its own
        raise InputError(f"{file} is no ONNX model: {str(error).partition(chr(10))[0]}", "download it again") from error
