"""Buckets against literal tables, brute force and their promises."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.data import buckets
from trainer.errors import InputError

sides = st.integers(1, 6000)
grids = st.sampled_from([(64, 8), (64, 16), (64, 64), (100, 64), (512, 64), (512, 8), (768, 32), (1024, 64)])


def brute_force(size, resolution, step):
    """All sizes on the grid that fit into the picture, the area and the aspect."""
    return [
        (width, height)
        for width in range(step, min(size[0], 2 * resolution) + 1, step)
        for height in range(step, min(size[1], 2 * resolution) + 1, step)
        if width * height <= resolution**2 and max(width, height) <= buckets.MAX_ASPECT * min(width, height)
    ]


def test_regular_buckets_are_the_known_ones():
    assert buckets.regular(64, 16) == ((32, 96), (48, 80), (64, 64), (80, 48), (96, 32))
    wide = ((576, 448), (640, 384), (704, 320), (768, 320))
    assert buckets.regular(512, 64) == (*sorted(size[::-1] for size in wide), (512, 512), *wide)
    assert buckets.regular(64, 64) == ((64, 64),)


@given(grids)
def test_regular_buckets_are_within_the_area_and_as_large_as_the_grid_allows(grid):
    resolution, step = grid
    for width, height in buckets.regular(resolution, step):
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert max(width, height) <= buckets.MAX_ASPECT * min(width, height)
        square = width == height == resolution // step * step
        larger = max((width + step) * height, width * (height + step))
        assert square or larger > resolution**2, "one more step on one side would still be within the area"


@pytest.mark.parametrize(
    ("size", "resolution", "step", "expected"),
    [
        ((64, 64), 64, 16, (64, 64)),
        ((1000, 1000), 64, 16, (64, 64)),
        ((3000, 2000), 512, 64, (640, 384)),  # 1.5 lies between 1.286 and 1.667, nearer to the second
        ((2000, 3000), 512, 64, (384, 640)),
        ((512, 511), 512, 64, (512, 448)),  # a pixel short of the square
        ((200, 130), 512, 64, (192, 128)),
        ((2000, 300), 512, 64, (768, 256)),  # bounded by the aspect
        ((5000, 64), 512, 64, (192, 64)),
        ((63, 100), 64, 16, (48, 80)),  # fits the regular one
        ((16, 16), 64, 16, (16, 16)),
    ],
)
def test_choice(size, resolution, step, expected):
    assert buckets.choose(size, resolution, step, upscale=False) == expected


@given(sides, sides, grids)
def test_a_picture_is_never_enlarged_and_gets_the_nearest_or_the_largest_that_fits(width, height, grid):
    resolution, step = grid
    size = (width, height)
    assume(min(size) >= step)
    bucket = buckets.choose(size, resolution, step, upscale=False)
    assert bucket[0] <= width and bucket[1] <= height
    distance = {known: abs(math.log(width / height * known[1] / known[0])) for known in buckets.regular(resolution, step)}
    if bucket in distance:
        assert distance[bucket] <= min(distance.values()) + 1e-9
    else:
        assert bucket in brute_force(size, resolution, step)


@settings(max_examples=40)
@given(st.integers(8, 200), st.integers(8, 200), st.sampled_from([(64, 8), (64, 16), (128, 32)]))
def test_a_picture_smaller_than_its_bucket_gets_the_largest_that_fits(width, height, grid):
    resolution, step = grid
    size = (width, height)
    assume(min(size) >= step)
    nearest = buckets.choose(size, resolution, step, upscale=True)
    chosen = buckets.choose(size, resolution, step, upscale=False)
    if nearest[0] <= width and nearest[1] <= height:
        assert chosen == nearest
    else:
        areas = [w * h for w, h in brute_force(size, resolution, step)]
        assert chosen[0] * chosen[1] == max(areas)


@given(sides, sides, grids)
def test_upscale_takes_regular_buckets_alone_and_transposing_transposes(width, height, grid):
    bucket = buckets.choose((width, height), *grid, upscale=True)
    assert bucket in buckets.regular(*grid)
    other = buckets.choose((height, width), *grid, upscale=True)
    assert other[0] * other[1] == bucket[0] * bucket[1]


def test_a_picture_smaller_than_one_step_is_refused():
    with pytest.raises(ValueError, match="100x63 is smaller than 64x64"):
        buckets.choose((100, 63), 512, 64, upscale=False)


@given(sides, sides, st.sampled_from([(64, 64), (96, 32), (448, 576)]))
def test_the_crop_is_centred_of_the_buckets_aspect_and_the_largest(width, height, bucket):
    left, top, right, bottom = buckets.crop_box((width, height), bucket)
    assert left + right == pytest.approx(width) and top + bottom == pytest.approx(height)
    assert (right - left) / (bottom - top) == pytest.approx(bucket[0] / bucket[1])
    assert min(left, top) == 0 and min(width - right, height - bottom) == pytest.approx(0, abs=1e-9)
    share = (right - left) * (bottom - top) / (width * height)
    assert buckets.kept((width, height), bucket) == pytest.approx(share)


def test_further_resolutions_are_those_that_enlarge_nothing():
    others = [512, 768, 1024]
    assert buckets.choose_others((3000, 3000), (512, 512), others, 64, upscale=False) == ((768, 768), (1024, 1024))
    assert buckets.choose_others((800, 800), (512, 512), others, 64, upscale=False) == ((768, 768),)
    assert buckets.choose_others((800, 800), (512, 512), others, 64, upscale=True) == ((768, 768), (1024, 1024))
    assert buckets.choose_others((300, 300), (256, 256), others, 64, upscale=False) == ()


@pytest.mark.parametrize(
    ("resolution", "step", "factor", "names"),
    [
        (512, 20, 8, ["data.bucket_step = 20", "multiples of 8", "such as 16"]),
        (512, 8, 16, ["data.bucket_step = 8", "multiples of 16", "such as 16"]),
        (64, 128, 8, ["data.bucket_step = 128", "data.resolution = 64", "64 or less"]),
    ],
)
def test_a_step_that_does_not_fit_names_setting_and_fix(resolution, step, factor, names):
    with pytest.raises(InputError) as caught:
        buckets.check(resolution, step, factor)
    assert all(name in str(caught.value) for name in names)


def test_steps_that_fit_pass():
    assert buckets.check(64, 16, 8) is None
    assert buckets.check(512, 64, 64) is None
