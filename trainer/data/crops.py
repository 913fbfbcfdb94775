"""Which part of a picture becomes its bucket: the largest around the middle, or random ones. Pure geometry.

A random crop is the largest part of the bucket's aspect, shrunk by a share drawn between ``keep`` and 1, at a place drawn evenly.
It is never smaller than its bucket where the largest is not, so that cropping enlarges nothing. The draws depend on the picture's
content, the bucket and the crop's number alone: every run finds the same crops in its cache.
"""

from __future__ import annotations

from trainer.conditioning import Size
from trainer.data.buckets import Box, crop_box
from trainer.data.order import draws


def random_box(size: Size, bucket: Size, keep: float, *identity: object) -> Box:
    """The random crop of a picture of ``size`` that ``identity`` stands for."""
    left, top, right, bottom = crop_box(size, bucket)
    draw = draws("crop", bucket, *identity)
    least = min(1.0, max(keep, bucket[0] / (right - left)))
    share = 1 - draw.random() * (1 - least)
    width, height = share * (right - left), share * (bottom - top)
    left, top = draw.random() * (size[0] - width), draw.random() * (size[1] - height)
    return left, top, left + width, top + height


def offset(box: Box, size: Size, bucket: Size, mirrored: bool = False) -> Size:
    """Left, top of the bucket in the picture once that is scaled so that ``box`` fills it, in whole pixels.

    Of a mirrored picture the distance from its right side: that is what is left of the crop after mirroring.
    """
    left, top, right, _ = box
    scale = bucket[0] / (right - left)
    return round((size[0] - right if mirrored else left) * scale), round(top * scale)
