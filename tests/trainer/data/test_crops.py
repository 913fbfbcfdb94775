"""Random crops: within the picture, of the bucket's aspect, never enlarging, and the same for the same picture."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainer.data.buckets import crop_box
from trainer.data.crops import offset, random_box

sides = st.integers(64, 3000)
BUCKETS = st.sampled_from([(64, 64), (96, 32), (448, 576), (1024, 1024)])


@given(sides, sides, BUCKETS, st.floats(0.2, 1), st.integers(0, 5))
def test_a_crop_is_a_part_of_the_picture_of_the_buckets_aspect(width, height, bucket, keep, number):
    left, top, right, bottom = random_box((width, height), bucket, keep, "hash", number)
    slack = 1e-9 * max(width, height)
    assert -slack <= left < right <= width + slack and -slack <= top < bottom <= height + slack
    assert (right - left) / (bottom - top) == pytest.approx(bucket[0] / bucket[1])
    whole = crop_box((width, height), bucket)
    share = (right - left) / (whole[2] - whole[0])
    assert keep - 1e-9 <= share <= 1 + 1e-9
    if whole[2] - whole[0] >= bucket[0]:
        assert right - left >= bucket[0] - 1e-6, "the crop would be enlarged"


def test_with_nothing_to_shrink_only_the_long_side_moves():
    boxes = [random_box((300, 100), (64, 64), 1.0, "hash", number) for number in range(200)]
    assert all(box[1] == 0 and box[3] == pytest.approx(100) and box[2] - box[0] == pytest.approx(100) for box in boxes)
    lefts = [box[0] for box in boxes]
    assert min(lefts) < 10 and max(lefts) > 190 and abs(sum(lefts) / len(lefts) - 100) < 4 * 200 / 12**0.5 / 200**0.5


@given(sides, sides, BUCKETS)
def test_crops_differ_by_picture_bucket_and_number_and_repeat(width, height, bucket):
    assume(width >= 2 * bucket[0] and height >= 2 * bucket[1])
    boxes = {
        random_box((width, height), size, 0.5, sha, number) for size in (bucket, (128, 64)) for sha in "ab" for number in range(3)
    }
    assert len(boxes) == 12
    assert random_box((width, height), bucket, 0.5, "a", 1) in boxes


def test_the_offset_is_in_pixels_of_the_resized_picture_and_mirrors():
    # 400x200 covers 64x64 at 128x64, of which 32 columns go on either side
    assert offset(crop_box((400, 200), (64, 64)), (400, 200), (64, 64)) == (32, 0)
    assert offset(crop_box((200, 400), (64, 64)), (200, 400), (64, 64)) == (0, 32)
    # the part 40..140 x 10..110 at 64 pixels: the picture is 256 x 128 then, with 40 * 0.64 columns left and 260 * 0.64 right
    assert offset((40, 10, 140, 110), (400, 200), (64, 64)) == (26, 6)
    assert offset((40, 10, 140, 110), (400, 200), (64, 64), mirrored=True) == (166, 6)
