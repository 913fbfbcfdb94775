"""Pictures and captions: from a folder to batches.

``scan`` reads the folder, ``Cache`` turns pictures and captions into latents and text states on disk,
``Loader`` deals them out. Nothing is dropped in silence; every message names the file and the fix.

    dataset = scan(config.data, factor=8)
    cache = Cache(run.cache, notice=warn, should_stop=run.stop_requested, progress=show)
    latents = cache.latents(dataset, PixelEncoder(encode, fingerprint), flip=config.data.flip)
    texts = cache.texts(dataset.prompts, TextEncoder(encode, fingerprint, max_length=77, clip_skip=0))   # or None
    loader = Loader(dataset, latents, texts, Dealing.of(config.data, config.train))
    batch = loader.batch(k)
"""

from trainer.data.cache import Cache, PixelEncoder, TextEncoder
from trainer.data.holdout import HeldOut, hold_out
from trainer.data.items import Dataset, Item, Report
from trainer.data.loader import Batch, Dealing, Loader
from trainer.data.scan import scan
from trainer.data.sources import Source

__all__ = [
    "Batch", "Cache", "Dataset", "Dealing", "HeldOut", "Item", "Loader", "PixelEncoder", "Report", "Source", "TextEncoder",
    "hold_out", "scan",
]  # fmt: skip
