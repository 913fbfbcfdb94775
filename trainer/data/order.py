"""Who is in which batch: a pure function of the seed and the batch's number, for any number of processes.

The batches of all epochs form one endless row. An epoch is ``batches_per_epoch`` of them and holds every item exactly
``repeats`` times; a bucket's last batch may be smaller. Process ``rank`` of ``world`` takes batch ``k * world + rank`` at
its micro step ``k``: all have the same number of micro steps, and what two processes see in one micro step is what one
process sees in two.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence


class Order:
    """Deals items, given by their buckets, into batches of one bucket each."""

    def __init__(self, buckets: Sequence[Hashable], batch_size: int, repeats: int, seed: int) -> None:
        self._members: dict[Hashable, list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        self._batch_size, self._repeats, self._seed = batch_size, repeats, seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every item ``repeats`` times."""
        return sum(-(-len(members) * self._repeats // self._batch_size) for members in self._members.values())

    def batch(self, number: int) -> list[int]:
        """Items of batch ``number`` (from 0). Costs no more for a late epoch than for the first."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch[0]:
            self._epoch = (epoch, self._deal(epoch))
        return self._epoch[1][place]

    def _deal(self, epoch: int) -> list[list[int]]:
        """One epoch: each bucket's rounds of all its items in turn, cut into batches; then the batches in any order."""
        draw = generator(self._seed, "order", epoch)
        batches = []
        for members in self._members.values():
            row = [item for _ in range(self._repeats) for item in draw.sample(members, len(members))]
            batches += [row[start : start + self._batch_size] for start in range(0, len(row), self._batch_size)]
        draw.shuffle(batches)
        return batches


def generator(seed: int, purpose: str, number: int) -> random.Random:
    """Random numbers that depend on nothing else; Python seeds from text by sha512, the same in every version."""
    return random.Random(f"{seed}/{purpose}/{number}")  # noqa: S311
