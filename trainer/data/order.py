"""Who is in which batch: a pure function of the seed and the batch's number, for any number of processes.

The batches of all epochs form one endless row. An epoch is ``batches_per_epoch`` of them and holds every item exactly
its ``repeats`` times; a bucket's last batch may be smaller, or is filled with members that are seen once more. Process ``rank``
of ``world`` takes batch ``k * world + rank`` at its micro step ``k``: all have the same number of micro steps, and what two
processes see in one micro step is what one process sees in two.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence


class Order:
    """Deals items, given by their buckets, into batches of one bucket each."""

    def __init__(
        self, buckets: Sequence[Hashable], batch_size: int, repeats: Sequence[int], seed: int, fill: bool = False
    ) -> None:
        self._members: dict[Hashable, list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        self._batch_size, self._repeats, self._seed, self._fill = batch_size, repeats, seed, fill
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every item its ``repeats`` times."""
        return sum(-(-length // self._batch_size) for length in self._lengths)

    @property
    def short_batches(self) -> list[int]:
        """Pictures in each batch of an epoch that its bucket cannot fill."""
        return [rest for length in self._lengths if (rest := length % self._batch_size)]

    @property
    def _lengths(self) -> list[int]:
        """Pictures of each bucket in an epoch."""
        return [sum(self._repeats[item] for item in members) for members in self._members.values()]

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
            row = [item for round_members in self._rounds(members) for item in draw.sample(round_members, len(round_members))]
            batches += [row[start : start + self._batch_size] for start in range(0, len(row), self._batch_size)]
            if self._fill:
                batches[-1] += _fillers(batches[-1], members, self._batch_size, draw)
        draw.shuffle(batches)
        return batches

    def _rounds(self, members: list[int]) -> list[list[int]]:
        """For each round of an epoch the members that are seen that often."""
        most = max(self._repeats[item] for item in members)
        return [[item for item in members if self._repeats[item] > number] for number in range(most)]


def _fillers(batch: list[int], members: list[int], size: int, draw: random.Random) -> list[int]:
    """What makes the batch full: first members that are not in it, then all in turn."""
    fillers: list[int] = []
    pool = [item for item in members if item not in batch] or members
    while missing := size - len(batch) - len(fillers):
        fillers += draw.sample(pool, min(missing, len(pool)))
        pool = members
    return fillers


def generator(seed: int, purpose: str, number: int) -> random.Random:
    """Random numbers that depend on nothing else; Python seeds from text by sha512, the same in every version."""
    return random.Random(f"{seed}/{purpose}/{number}")  # noqa: S311


def draws(purpose: str, *identity: object) -> random.Random:
    """Random numbers that depend on these names and numbers alone."""
    return random.Random("/".join(map(str, (purpose, *identity))))  # noqa: S311
