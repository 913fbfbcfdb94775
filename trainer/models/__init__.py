"""Base models: families, and how they load."""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from trainer.models.bundle import Bundle  # noqa: E402
from trainer.models.registry import load, pixel_factor, resolve_base  # noqa: E402

__all__ = ["Bundle", "load", "pixel_factor", "resolve_base"]
