"""Rules ``small`` and ``remainder``: what the sizes of the pictures make of the resolution and of the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trainer.data import buckets
from trainer.data.buckets import Size
from trainer.lint.finding import Finding, Severity
from trainer.lint.view import View


def small(view: View) -> Iterator[Finding]:
    """Pictures with fewer pixels than their regular bucket: trained smaller, or enlarged, which is soft."""
    regular = buckets.regular(view.resolution, view.bucket_step)
    for picture in view.pictures:
        wanted = min(regular, key=lambda bucket: (1 - buckets.kept(picture.size, bucket), -bucket[0] * bucket[1]))
        if not buckets.fits(wanted, picture.size):
            enlarged = not buckets.fits(picture.bucket, picture.size)
            problem = (
                f"{_text(picture.size)} is less than the {_text(wanted)} of data.resolution = {view.resolution}: "
                f"it is {'enlarged' if enlarged else f'trained at {_text(picture.bucket)}'}"
            )
            fix = "take a larger version, or lower data.resolution"
            yield Finding("small", Severity.WARNING, (picture.name,), problem, fix)


def remainder(view: View) -> Iterator[Finding]:
    """Buckets that cannot fill a batch even once an epoch: their steps see fewer pictures than the others."""
    members: Counter[Size] = Counter()
    for picture in view.pictures:
        members[picture.bucket] += picture.repeats
    for bucket, number in members.items():
        if number < view.batch_size:
            names = tuple(picture.name for picture in view.pictures if picture.bucket == bucket)
            problem = (
                f"the bucket {_text(bucket)} has {number} pictures an epoch and a batch has {view.batch_size}: "
                "its batches are smaller"
            )
            fix = "crop these to the shape of the others, raise data.bucket_step, or lower train.batch_size"
            yield Finding("remainder", Severity.INFO if len(members) == 1 else Severity.WARNING, names, problem, fix)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
