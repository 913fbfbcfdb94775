"""Latents and text states on disk, each under a key of its content, its transform and its encoder.

An edited pixel or caption, another bucket or another encoder has another key, so exactly that entry is made anew;
a file that was only renamed or touched is found again. Each entry depends on its key alone, so by default entries are
encoded one by one: in larger batches the last bits would depend on which other entries happened to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trainer.conditioning import States
from trainer.data import masks
from trainer.data.areas import area_means
from trainer.data.buckets import Size
from trainer.data.encoded import LatentStore, MaskStore, TextStore, own, pack
from trainer.data.entries import Entries, Entry, key_of, sweep
from trainer.data.images import Pixels, decode, to_tensor
from trainer.data.items import Item
from trainer.data.problems import Unusable, shown
from trainer.data.views import View, Views
from trainer.errors import ExitCode, InputError, NonFiniteError, StoppedError
from trainer.heap import trim
from trainer.team import Team

Payload = TypeVar("Payload")

TRIMMED = 16
"""Entries after which freed memory is given back."""
TRANSFORM = "lanczos, 2"
"""Part of every latent's key: change it whenever ``images.decode`` or ``Views.pixels`` gives other pixels."""
MASKING = "area means, 1"
"""The same of every mask's key."""


@dataclass(frozen=True)
class PixelEncoder:
    """``encode([B, 3, H, W] in -1..1) -> (mean, std)``, each [B, C, h, w].

    ``fingerprint`` names weights and precision: equal fingerprints promise equal results.
    """

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    fingerprint: str


@dataclass(frozen=True)
class TextEncoder:
    """``encode([text, ...]) -> states``, a tensor or a tuple of tensors, each with the batch first."""

    encode: Callable[[list[str]], States]
    fingerprint: str
    max_length: int
    clip_skip: int


@dataclass(frozen=True)
class _Job(Generic[Payload]):
    """An entry that is wanted. ``label`` names it to the user; only jobs of one ``shape`` are encoded together.

    ``number`` says which process encodes it: those of one picture have the same, so that it is decoded once.
    """

    key: str
    label: str
    shape: Size
    number: int
    payload: Payload


class Cache:
    """A folder of entries, which runs may share.

    ``notice(message)`` says what the user should know, ``should_stop()`` is asked between entries,
    ``progress(done, total)`` counts entries that are ready. Each process of ``team`` encodes its share, and all wait
    until every share is there.
    """

    def __init__(
        self,
        folder: Path,
        notice: Callable[[str], None] = lambda message: None,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        team: Team = Team(),  # noqa: B008  # frozen
    ) -> None:
        self._folder, self._team = folder, team
        self._notice, self._should_stop, self._progress = notice, should_stop, progress
        sweep(folder)

    def latents(self, views: Views, encoder: PixelEncoder, batch_size: int = 1) -> LatentStore:
        """Every view's posterior; only what the folder lacks is encoded.

        Raises ``NonFiniteError`` naming the picture, ``InputError`` where a picture changed since the scan,
        ``DiskError`` where an entry cannot be written, ``StoppedError`` where ``should_stop()``.
        """
        items, keys, jobs = views.dataset.items, {}, []
        for view in views.all():
            keys[view] = key_of(*views.identity(view), TRANSFORM, encoder.fingerprint)
            label = f"the latents of {shown(items[view.item].path.name)}"
            jobs.append(_Job(keys[view], label, view.bucket, view.item, view))

        # views of one picture follow each other: one decoding serves them all
        decoded = lru_cache(maxsize=1)(lambda index: _decoded(items[index], views.dataset.background))

        def encode(wanted: Sequence[View]) -> list[Entry]:
            pixels = [to_tensor(views.pixels(view, decoded(view.item)), view.mirrored) for view in wanted]
            mean, std = (part.float() for part in encoder.encode(torch.stack(pixels)))
            return [{"mean": own(mean[row]), "std": own(std[row])} for row in range(len(wanted))]

        entries = Entries(self._folder, "latents")
        self._fill(entries, jobs, encode, batch_size)
        return LatentStore(entries, keys)

    def masks(self, views: Views, latents: LatentStore) -> MaskStore | None:
        """The masks of the views at the size of their latents, or None where no picture has one. Raises as ``latents``.

        A mask is the same for every colouring, and that of a mirrored view is mirrored when it is asked for.
        """
        items, keys, jobs = views.dataset.items, {}, []
        for view in views.all():
            item = items[view.item]
            if item.mask is not None and not (view.colour or view.mirrored):
                height, width = latents.get(view)[0].shape[-2:]
                keys[view] = key_of(item.mask_sha256, views.box(view), (width, height), MASKING)
                jobs.append(_Job(keys[view], f"the mask of {shown(item.path.name)}", (width, height), view.item, view))

        loaded = lru_cache(maxsize=1)(lambda index: _mask(items[index]))

        def encode(wanted: Sequence[View]) -> list[Entry]:
            (view,) = wanted
            cells = next(job.shape for job in jobs if job.payload is view)
            return [{"mask": torch.from_numpy(area_means(loaded(view.item), views.box(view), cells)[None] / 255)}]

        entries = Entries(self._folder, "mask")
        self._fill(entries, jobs, encode, batch_size=1)
        return MaskStore(entries, keys) if keys else None

    def texts(self, texts: Sequence[str], encoder: TextEncoder, batch_size: int = 1) -> TextStore:
        """States of every text; only what the folder lacks is encoded. Raises as ``latents``."""
        settings = (encoder.fingerprint, encoder.max_length, encoder.clip_skip)
        keys = {text: key_of(text, *settings) for text in texts}
        jobs = [_Job(key, f"the text states of {text!r}", (0, 0), n, text) for n, (text, key) in enumerate(keys.items())]

        def encode(wanted: Sequence[str]) -> list[Entry]:
            states = encoder.encode(list(wanted))
            return [pack(states, row) for row in range(len(wanted))]

        entries = Entries(self._folder, "text")
        self._fill(entries, jobs, encode, batch_size)
        return TextStore(entries, keys)

    def _fill(
        self,
        entries: Entries,
        jobs: Sequence[_Job[Payload]],
        encode: Callable[[Sequence[Payload]], list[Entry]],
        batch_size: int,
    ) -> None:
        """Encode and write what ``entries`` lacks of this process's share; done when all processes are."""
        distinct = [job for job in {job.key: job for job in jobs}.values() if self._team.owns(job.number)]
        failed = True
        try:
            self._fill_share(entries, distinct, encode, batch_size)
            failed = False
        finally:
            others_failed = self._team.any(failed) and not failed
        if others_failed:
            raise StoppedError("another process stopped or failed while encoding", "see what it says", ExitCode.INTERRUPTED)

    def _fill_share(
        self,
        entries: Entries,
        distinct: Sequence[_Job[Payload]],
        encode: Callable[[Sequence[Payload]], list[Entry]],
        batch_size: int,
    ) -> None:
        missing = [job for job in distinct if not self._is_there(entries, job)]
        done = len(distinct) - len(missing)
        self._progress(done, len(distinct))
        for group in _batches(missing, batch_size):
            self._go_on()
            with torch.no_grad():
                made = encode([job.payload for job in group])
            for job, entry in zip(group, made, strict=True):
                _check_finite(job.label, entry)
                entries.put(job.key, entry)
                done += 1
                self._progress(done, len(distinct))
                if done % TRIMMED == 0:
                    trim()

    def _is_there(self, entries: Entries, job: _Job[Payload]) -> bool:
        self._go_on()
        try:
            return entries.find(job.key) is not None
        except ValueError as error:
            self._notice(f"the cache file of {job.label} is damaged and made anew ({error})")
            return False

    def _go_on(self) -> None:
        if self._should_stop():
            what = "stopped while pictures and captions were encoded; finished entries are kept in the cache"
            raise StoppedError(what, "start again: it goes on there", ExitCode.INTERRUPTED)


def _batches(jobs: Sequence[_Job[Payload]], batch_size: int) -> Iterator[list[_Job[Payload]]]:
    """Jobs in groups of one shape."""
    for _, same in groupby(sorted(jobs, key=lambda job: job.shape), key=lambda job: job.shape):
        group = list(same)
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


def _decoded(item: Item, background: tuple[int, int, int]) -> Pixels:
    """The picture. Raises ``InputError`` where the file is no longer what was scanned."""
    try:
        decoded = decode(item.path, background)
    except (Unusable, OSError) as error:
        raise _changed(item.path) from error
    if decoded.sha256 != item.sha256:
        raise _changed(item.path)
    return decoded.pixels


def _mask(item: Item) -> masks.Mask:
    """The picture's mask at the picture's size. Raises ``InputError`` where it is no longer what was scanned."""
    assert item.mask is not None
    try:
        values = masks.load(item.path, item.mask, item.size)
    except (Unusable, OSError) as error:
        raise _changed(item.mask) from error
    if masks.sha256(values) != item.mask_sha256:
        raise _changed(item.mask)
    return values


def _changed(file: Path) -> InputError:
    return InputError(f"{file} changed while the run was starting", "start again, and leave the folder alone meanwhile")


def _check_finite(label: str, entry: Entry) -> None:
    if not all(torch.isfinite(tensor).all() for tensor in entry.values()):
        fix = "hold the base model in fp32 (model.dtype = fp32), and check that its files are sound"
        raise NonFiniteError(f"{label} are not finite (NaN or infinite)", fix, "No picture is lost; nothing was trained.")
