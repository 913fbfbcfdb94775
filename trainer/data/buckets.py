"""Aspect-ratio buckets: which size a picture is trained at. Pure integer arithmetic, the same everywhere.

A regular bucket has sides that are multiples of ``step``, an area of at most ``resolution ** 2`` and an aspect of at
most ``MAX_ASPECT``. A picture gets the regular bucket of the nearest aspect. If that would enlarge the picture, it gets
the largest such size that fits into it instead. The picture is then scaled to cover its bucket and cropped at the centre.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from trainer.conditioning import Size
from trainer.errors import InputError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom of a part of a picture, in its pixels."""

MAX_ASPECT = 3
"""Longer side over shorter side; beyond it a picture is cropped, since base models draw badly there."""


def check(resolution: int, step: int, factor: int) -> None:
    """Raise ``InputError`` unless the model can work on these sizes; ``factor`` is its VAE's reduction."""
    if step % factor:
        lower = max(step // factor, 1) * factor
        raise InputError(
            f"data.bucket_step = {step} does not fit this base model, whose pictures have sides that are multiples of {factor}",
            f"set data.bucket_step to a multiple of {factor}, such as {lower}",
        )
    if step > resolution:
        raise InputError(
            f"data.bucket_step = {step} is larger than data.resolution = {resolution}: no bucket is that small",
            f"set data.bucket_step to {resolution // factor * factor} or less, or a larger data.resolution",
        )


@lru_cache
def regular(resolution: int, step: int) -> tuple[Size, ...]:
    """All regular buckets: for each width the largest height, for each height the largest width, and the square."""
    area, square = resolution * resolution, resolution // step * step
    tall = {(side, area // side // step * step) for side in range(step, 2 * resolution, step)} | {(square, square)}
    return tuple(sorted({size for pair in tall for size in (pair, pair[::-1]) if _usual(size)}))


def choose(size: Size, resolution: int, step: int, upscale: bool) -> Size:
    """The bucket of a picture of ``size``. Raises ``ValueError`` where none fits without enlarging the picture."""
    bucket = min(regular(resolution, step), key=lambda candidate: _rank(size, candidate))
    if upscale or fits(bucket, size):
        return bucket
    smaller = max(_fitting(size, resolution, step), key=lambda fitting: _worth(size, fitting), default=None)
    if smaller is None:
        raise ValueError(f"{size[0]}x{size[1]} is smaller than {step}x{step}")
    return smaller


def choose_others(size: Size, first: Size, resolutions: Sequence[int], step: int, upscale: bool) -> tuple[Size, ...]:
    """The buckets of further resolutions, beside ``first``: those that do not enlarge the picture, unless that is allowed."""
    nearest = [min(regular(side, step), key=lambda candidate: _rank(size, candidate)) for side in resolutions]
    return tuple(dict.fromkeys(bucket for bucket in nearest if bucket != first and (upscale or fits(bucket, size))))


def fits(bucket: Size, size: Size) -> bool:
    """Whether a picture of ``size`` covers ``bucket`` without being enlarged."""
    return bucket[0] <= size[0] and bucket[1] <= size[1]


def kept(size: Size, bucket: Size) -> float:
    """Share of the picture's area that the crop keeps."""
    return float(1 / _mismatch(size, bucket))


def crop_box(size: Size, bucket: Size) -> Box:
    """Left, top, right, bottom of the part of the picture that becomes the bucket: the largest centred one of its aspect."""
    width, height = size
    inner_width = min(float(width), height * bucket[0] / bucket[1])
    inner_height = min(float(height), width * bucket[1] / bucket[0])
    left, top = (width - inner_width) / 2, (height - inner_height) / 2
    return left, top, width - left, height - top


def _usual(size: Size) -> bool:
    """Within ``MAX_ASPECT``; a side of nothing is not. Within the area no side then reaches twice the resolution."""
    return max(size) <= MAX_ASPECT * min(size)


def _fitting(size: Size, resolution: int, step: int) -> Iterator[Size]:
    """For each width that fits into ``size`` the largest height that does, within area and aspect."""
    area = resolution * resolution
    for width in range(step, min(size[0], 2 * resolution) + 1, step):
        fitting = width, min(size[1], area // width, MAX_ASPECT * width) // step * step
        if _usual(fitting):
            yield fitting


def _mismatch(size: Size, bucket: Size) -> Fraction:
    """How many times wider or taller one is than the other, at least 1."""
    ratio = Fraction(size[0] * bucket[1], size[1] * bucket[0])
    return max(ratio, 1 / ratio)


def _rank(size: Size, bucket: Size) -> tuple[Fraction, int, int]:
    """The least is best: nearest aspect, then largest, then widest."""
    return _mismatch(size, bucket), -bucket[0] * bucket[1], -bucket[0]


def _worth(size: Size, bucket: Size) -> tuple[int, Fraction, int]:
    """The most is best: largest, then nearest aspect, then widest."""
    return bucket[0] * bucket[1], -_mismatch(size, bucket), bucket[0]
