"""Pictures and captions: from a folder to batches.

``scan`` reads the folder, ``Cache`` turns pictures and captions into latents and text states on disk,
``Loader`` deals them out. Nothing is dropped in silence; every message names the file and the fix.

    dataset = scan(config.data, factor=8)
    cache = Cache(run.cache, notice=warn, should_stop=run.stop_requested, progress=show)
    views = Views(dataset)
    latents = cache.latents(views, PixelEncoder(encode, fingerprint))
    texts = cache.texts(phrasing.texts(dataset), TextEncoder(encode, fingerprint, max_length=77, clip_skip=0))   # or None
    loader = Loader(views, Encoded(latents, cache.masks(views, latents), texts), Dealing.of(config))
    batch = loader.batch(k)
"""

from trainer.data import phrasing
from trainer.data.cache import Cache, PixelEncoder, TextEncoder
from trainer.data.encoded import Encoded
from trainer.data.holdout import HeldOut, hold_out
from trainer.data.items import Dataset, Item, Report
from trainer.data.loader import Batch, Dealing, Loader
from trainer.data.scan import scan
from trainer.data.sources import Source
from trainer.data.views import Views

__all__ = [
    "Batch", "Cache", "Dataset", "Dealing", "Encoded", "HeldOut", "Item", "Loader", "PixelEncoder", "Report", "Source",
    "TextEncoder", "Views", "hold_out", "phrasing", "scan",
]  # fmt: skip
