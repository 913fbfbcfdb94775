"""What an epoch is, in words for the plan."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.data.loader import Dealing
from trainer.data.problems import count
from trainer.data.views import Views


def notes(views: Views, dealing: Dealing) -> Iterator[str]:
    """How folders share an epoch, where there are several kinds, and what becomes of batches that are not full."""
    order, size = dealing.order(views), dealing.batch_size
    items, repeats = views.dataset.items, views.dataset.repeats
    batches = count(order.batches_per_epoch, "batch")
    seen, kept = (sum(repeats[s.item] for s in views.shots if items[s.item].regularization is kind) for kind in (False, True))
    if kept:
        pictures = f"{count(seen, 'training picture')} and {count(kept, 'regularisation picture')}"
        yield f"an epoch is {pictures}, repeats included, in {batches} in any order"
    elif len(views.shots) > len(items):
        yield f"an epoch is every picture at each of its resolutions: {count(seen, 'picture')} in {batches}"
    if short := order.short_batches:
        what = f"{len(short)} of {batches} of an epoch"
        if dealing.fill:
            yield f"{what} filled up with {count(sum(size - held for held in short), 'picture')} seen once more"
        else:
            yield f"{what} smaller than train.batch_size = {size}, where a bucket's pictures do not fill it; none is dropped"
