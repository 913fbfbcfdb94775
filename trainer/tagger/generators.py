"""Captioners that write sentences: BLIP (Li et al. 2022) and Florence-2 (Xiao et al. 2024), as transformers has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)
from transformers.utils import logging

from trainer.data.images import Pixels
from trainer.errors import InputError

WORDS = 75
"""Most tokens of a caption: what a text encoder reads."""
BEAMS = 3


class Generator:
    """A processor and a model from a folder; beam search, so that a picture always gets the same words."""

    processor_class: Any
    model_class: Any
    prompt: dict[str, str] = {}

    def __init__(self, folder: Path) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.processor = self.processor_class.from_pretrained(folder, local_files_only=True)
            model = self.model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"--captioner {folder} cannot be loaded: {reason}", "copy or download the folder again") from error
        self.model = model.to(self.device).eval()

    @torch.no_grad()
    def describe(self, pixels: Pixels) -> str:
        """The most likely sentence."""
        inputs = self.processor(images=Image.fromarray(pixels), return_tensors="pt", **self.prompt).to(self.device)
        tokens = self.model.generate(**inputs, max_new_tokens=WORDS, num_beams=BEAMS, do_sample=False)
        return " ".join(self.processor.decode(tokens[0], skip_special_tokens=True).split())


class Blip(Generator):
    """BLIP: one sentence."""

    processor_class, model_class = BlipProcessor, BlipForConditionalGeneration


class Florence(Generator):
    """Florence-2, asked for a detailed caption."""

    processor_class, model_class = Florence2Processor, Florence2ForConditionalGeneration
    prompt = {"text": "<DETAILED_CAPTION>"}
