"""The views of a data set: every picture at every size, crop, colouring and mirror image that training may draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

from trainer.conditioning import Frames, Size
from trainer.config.data import FolderConfig
from trainer.data import crops
from trainer.data.buckets import Box, crop_box
from trainer.data.colours import jitter
from trainer.data.images import Pixels, fit
from trainer.data.items import Dataset, Item
from trainer.data.problems import count


@dataclass(frozen=True)
class Shot:
    """A picture at one of its sizes: what an epoch counts."""

    item: int
    bucket: Size


@dataclass(frozen=True)
class View(Shot):
    """One way of showing a shot: which of its crops and colourings, and whether mirrored."""

    crop: int = 0
    colour: int = 0
    mirrored: bool = False


class Views:
    """How a data set is shown. ``plain``: each picture at its own bucket, cut around its middle, and nothing else."""

    def __init__(self, dataset: Dataset, plain: bool = False) -> None:
        self.dataset, self._plain = dataset, plain
        self._boxes = lru_cache(maxsize=None)(self._box)

    @property
    def shots(self) -> list[Shot]:
        """Every picture at each of its sizes, in the order of the items."""
        items = self.dataset.items
        return [Shot(i, size) for i, item in enumerate(items) for size in (item.buckets[:1] if self._plain else item.buckets)]

    def settings(self, item: int) -> FolderConfig:
        """What holds for a picture's folder."""
        return self.dataset.sources[self.dataset.items[item].source].settings

    def all(self) -> Iterator[View]:
        """Every view that ``draw`` can give; those of one picture follow each other."""
        for shot in self.shots:
            for crop, colour, mirrored in product(*self._ranges(shot.item)):
                yield View(shot.item, shot.bucket, crop, colour, bool(mirrored))

    def draw(self, shot: Shot, draw: random.Random) -> View:
        """A view of the shot; each is as likely as any other."""
        crops, colours, flips = self._ranges(shot.item)
        mirrored = draw.random() < (len(flips) - 1) / 2
        crop = draw.choice(crops) if len(crops) > 1 else 0
        return View(shot.item, shot.bucket, crop, draw.choice(colours) if len(colours) > 1 else 0, mirrored)

    def box(self, view: View) -> Box:
        """Left, top, right, bottom of the part of the picture that the view shows."""
        return self._boxes(view.item, view.bucket, view.crop)

    def identity(self, view: View) -> tuple[object, ...]:
        """What the view's pixels depend on, beside the way in which pictures are scaled: a key of the cache."""
        item, settings = self._item(view), self.settings(view.item)
        colour = (view.colour, *settings.color_jitter) if view.colour else None
        return item.sha256, view.bucket, self.box(view), colour, view.mirrored

    def pixels(self, view: View, picture: Pixels) -> Pixels:
        """The picture cut, scaled and coloured as the view says; not mirrored yet."""
        cut = fit(picture, view.bucket, self.box(view))
        strengths = self.settings(view.item).color_jitter
        return jitter(cut, strengths, self._item(view).sha256, view.colour) if view.colour else cut

    def frames(self, views: list[View]) -> Frames:
        """Where the views of one batch were cut from."""
        sizes = [self._item(view).size for view in views]
        offsets = [
            crops.offset(self.box(view), size, view.bucket, view.mirrored) for view, size in zip(views, sizes, strict=True)
        ]
        return Frames(sizes, offsets, views[0].bucket)

    def notes(self) -> Iterator[str]:
        """What is cached, counted, and which pictures have no room for what is asked."""
        views = list(self.all())
        if len(views) > len(self.dataset.items):
            yield f"{self._product()} = {count(len(views), 'view')} cached"
        random_crops = [shot for shot in self.shots if len(self._ranges(shot.item)[0]) > 1]
        if stuck := sum(self.box(View(s.item, s.bucket)) == self.box(View(s.item, s.bucket, 1)) for s in random_crops):
            fix = "set data.crop_keep below 1, or take larger pictures"
            yield f"no room for a second crop in {count(stuck, 'picture')} of the bucket's own shape: {fix}"
        if few := [item for item in self.dataset.items if len(item.buckets) < self.dataset.sizes]:
            yield f"{count(len(few), 'picture')} too small for some of data.resolutions: trained at the others alone"

    def _product(self) -> str:
        """``24 pictures x 3 crops x 2 flips``, or, where folders differ, the sum over them."""
        terms: dict[tuple[tuple[int, str], ...], int] = {}
        for index, item in enumerate(self.dataset.items):
            names = ("resolutions", "crops", "colours", "flips")
            numbers = (len(item.buckets), *(len(values) for values in self._ranges(index)))
            factors = tuple((number, name) for number, name in zip(numbers, names, strict=True) if number > 1)
            terms[factors] = terms.get(factors, 0) + 1
        return " + ".join(
            " x ".join([count(pictures, "picture"), *(f"{number} {name}" for number, name in factors)])
            for factors, pictures in sorted(terms.items(), key=lambda term: -term[1] * prod(n for n, _ in term[0]))
        )

    def _ranges(self, item: int) -> tuple[range, range, range]:
        """The numbers of crops, colourings and mirror images of a picture."""
        if self._plain:
            return range(1), range(1), range(1)
        settings = self.settings(item)
        colours = 1 + settings.color_variants if any(settings.color_jitter) else 1
        return range(settings.crops), range(colours), range(1 + settings.flip)

    def _box(self, item: int, bucket: Size, crop: int) -> Box:
        picture, settings = self.dataset.items[item], self.settings(item)
        if self._plain or settings.crop == "center":
            return crop_box(picture.size, bucket)
        return crops.random_box(picture.size, bucket, settings.crop_keep, picture.sha256, crop)

    def _item(self, view: View) -> Item:
        return self.dataset.items[view.item]
