"""Base models: families, and how they load."""

import logging
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else it advises, where it is installed, to install more

from trainer.models.bundle import Bundle  # noqa: E402
from trainer.models.registry import find, load, overflow_of, tokens_of  # noqa: E402
from trainer.models.source import Source  # noqa: E402

__all__ = ["Bundle", "Source", "find", "load", "overflow_of", "tokens_of"]
