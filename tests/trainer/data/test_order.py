"""The order's promises, over seeds, sizes, mixtures of buckets and numbers of processes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.order import Order

mixtures = st.lists(st.sampled_from("abcd"), min_size=1, max_size=25)
small = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)


@given(mixtures, small, small, seeds, st.integers(0, 5))
def test_each_epoch_holds_every_item_exactly_repeats_times(buckets, batch_size, repeats, seed, epoch):
    order = Order(buckets, batch_size, [repeats] * len(buckets), seed)
    length = order.batches_per_epoch
    batches = [order.batch(number) for number in range(epoch * length, (epoch + 1) * length)]
    assert Counter(item for batch in batches for item in batch) == dict.fromkeys(range(len(buckets)), repeats)
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len({buckets[item] for item in batch}) == 1


@given(mixtures, small, small, seeds)
def test_a_bucket_has_at_most_one_smaller_batch_in_an_epoch(buckets, batch_size, repeats, seed):
    order = Order(buckets, batch_size, [repeats] * len(buckets), seed)
    batches = [order.batch(number) for number in range(order.batches_per_epoch)]
    smaller = Counter(buckets[batch[0]] for batch in batches if len(batch) < batch_size)
    assert smaller == Counter(bucket for bucket, size in Counter(buckets).items() if size * repeats % batch_size)


@given(mixtures, small, seeds, st.integers(0, 200), st.integers(0, 200))
def test_a_batch_does_not_depend_on_what_was_asked_before(buckets, batch_size, seed, first, second):
    order = Order(buckets, batch_size, [2] * len(buckets), seed)
    order.batch(first)
    assert order.batch(second) == Order(buckets, batch_size, [2] * len(buckets), seed).batch(second)


uneven = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=20)


@given(uneven, small, seeds, st.integers(0, 3), st.booleans())
def test_members_with_repeats_of_their_own_are_seen_that_often_and_fillers_only_fill(members, batch_size, seed, epoch, fill):
    buckets, repeats = zip(*members, strict=True)
    order = Order(buckets, batch_size, repeats, seed, fill)
    length = order.batches_per_epoch
    batches = [order.batch(number) for number in range(epoch * length, (epoch + 1) * length)]
    assert all(len({buckets[item] for item in batch}) == 1 and len(batch) <= batch_size for batch in batches)
    seen = Counter(item for batch in batches for item in batch)
    extra = Counter({item: seen[item] - repeats[item] for item in range(len(members))})
    assert min(extra.values()) >= 0
    assert extra.total() == (sum(batch_size - held for held in order.short_batches) if fill else 0)
    if fill:
        assert {len(batch) for batch in batches} == {batch_size}
    else:
        assert sorted(len(batch) for batch in batches if len(batch) < batch_size) == sorted(order.short_batches)


def test_fillers_are_members_that_the_batch_lacks_as_long_as_there_are_any():
    order = Order("aaaaa", 4, [1] * 5, 3, fill=True)
    for epoch in range(50):
        assert all(len(set(order.batch(2 * epoch + place))) == 4 for place in (0, 1))
    few = Order("aa", 5, [1, 1], 3, fill=True)
    assert all(sorted(Counter(few.batch(number)).values()) == [2, 3] for number in range(20))


def test_epochs_and_seeds_differ():
    order, other = Order("a" * 12, 1, [1] * 12, 0), Order("a" * 12, 1, [1] * 12, 1)
    rows = [tuple(order.batch(12 * epoch + place)[0] for place in range(12)) for epoch in range(20)]
    assert len(set(rows)) == 20
    assert rows[0] != tuple(other.batch(place)[0] for place in range(12))


def test_every_place_is_equally_likely():
    """12 items, 2400 epochs: each is first about 200 times (chi-squared, 11 degrees: 31.3 is the 0.1 % point)."""
    firsts = Counter(Order("a" * 12, 1, [1] * 12, seed).batch(0)[0] for seed in range(2400))
    assert sum((firsts[item] - 200) ** 2 / 200 for item in range(12)) < 31.3


def test_a_late_batch_costs_no_more_than_an_early_one(monkeypatch):
    order, dealt = Order("ab" * 10, 3, [5] * 20, 7), []
    deal = order._deal
    monkeypatch.setattr(order, "_deal", lambda epoch: dealt.append(epoch) or deal(epoch))
    order.batch(10**9)
    order.batch(10**9 + 1)
    assert len(dealt) <= 2
    for number in range(order.batches_per_epoch):
        order.batch(number)
    assert dealt[-1] == 0 and len(dealt) <= 3


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    order = Order("aaabb", 2, [1] * 5, 42)
    assert [order.batch(number) for number in range(6)] == [[2, 1], [4, 3], [0], [4, 3], [0, 2], [1]]
