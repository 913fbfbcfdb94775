"""What a run will take, said before it starts: memory at the peak, time, disk; and what to change where it does not fit.

Weights and their share by shapes (``shapes``), the peak and the time of a step by doing it (``measure``). Where the machine
cannot even hold the weights, shapes alone answer and nothing is loaded.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from trainer.conditioning import Size
from trainer.config import Config
from trainer.console import size_text
from trainer.data import Batch, Cache, Dataset, Views, phrasing
from trainer.errors import OutOfMemoryError
from trainer.estimate.advice import advise
from trainer.estimate.measure import measure
from trainer.estimate.shapes import Need, empty_parts, predict, weight_bytes
from trainer.models.registry import DTYPES
from trainer.models.source import Source
from trainer.session import Session, build_loader

PROGRAM = 600 << 20
"""Bytes that the program takes beside the model, where it was not measured."""


@dataclass(frozen=True)
class Estimate:
    """Bytes and seconds of a run to come."""

    memory: int
    """At the peak of training and previews, on the device; on a CPU of the whole process."""
    available: int
    weights: int
    trained: int
    """Adapters, their gradients and the optimiser's state."""
    step_seconds: float
    seconds: float
    """Of all steps, without caching and previews."""
    disk: int
    """Checkpoints that are kept at once, exports and the cache."""
    disk_free: int

    @property
    def fits(self) -> bool:
        return self.memory <= self.available


def refuse_hopeless(config: Config, source: Source, dataset: Dataset, device: torch.device) -> None:
    """Raise ``OutOfMemoryError``, with settings that would fit, where the weights alone do not. Loads nothing."""
    models = empty_parts(source)
    plain = config.model_copy(update={"device": config.device.model_copy(update={"quantize": "none"})})
    on_device, at_load = weight_bytes(config, models, device), weight_bytes(plain, models, torch.device("cpu"))
    room = available(device)
    if on_device <= room and at_load <= available(torch.device("cpu")):
        return
    need = predict(config, source, heaviest_bucket(config, dataset), device)
    raise _too_large(config, source, dataset, device, PROGRAM + max(need.total, at_load), need)


def sample_of(config: Config, dataset: Dataset) -> Dataset:
    """Pictures of the heaviest bucket, as many as one step takes: those on which the peak is reached."""
    bucket = heaviest_bucket(config, dataset)
    items = [replace(item, bucket=bucket, more_buckets=()) for item in dataset.items if bucket in item.buckets]
    return replace(dataset, items=tuple(items[: config.train.batch_size * config.train.accumulation]), sizes=1, held_out=())


def heaviest_bucket(config: Config, dataset: Dataset) -> Size:
    """The bucket whose batches have the most pixels: a large one with few pictures may have smaller batches than others."""
    pictures: Counter[Size] = Counter()
    for item, repeats in zip(dataset.items, dataset.repeats, strict=True):
        for bucket in item.buckets:
            pictures[bucket] += repeats
    most = config.train.batch_size
    batches = {
        bucket: most if config.data.partial_batches == "fill" else min(number, most) for bucket, number in pictures.items()
    }
    return max(batches, key=lambda bucket: (batches[bucket] * bucket[0] * bucket[1], bucket))


def estimate(session: Session, dataset: Dataset, cache: Cache, prompts: list[str]) -> Estimate:
    """Measure a session that is ready for its first step.

    Args:
        dataset: all pictures of the run.
        cache: where the pictures of the largest bucket are encoded already, or may be.
        prompts: of the previews.

    Raises:
        OutOfMemoryError: the steps do not fit; the message has settings that would.
    """
    config, device, source = session.config, session.accelerator.device, session.bundle.source
    sample = sample_of(config, dataset)
    loader = build_loader(config, session.bundle, sample, cache, session.accelerator)
    try:
        measured = measure(session, loader, prompts)
    except (torch.OutOfMemoryError, MemoryError) as error:
        need = predict(config, source, heaviest_bucket(config, dataset), device)
        raise _too_large(config, source, dataset, device, PROGRAM + need.total, need) from error
    numbers = sum(parameter.numel() for parameter in session.parameters())
    step = measured.seconds * _mean_share(dataset, loader.batch(0).frames.target)
    return Estimate(
        memory=measured.peak,
        available=available(device),
        weights=_held(session),
        trained=measured.checkpoint + 4 * numbers,
        step_seconds=step,
        seconds=step * (config.train.steps - session.step),
        disk=_disk(config, session.saving.count(), measured.checkpoint, numbers) + _cache_size(config, dataset, loader.batch(0)),
        disk_free=_disk_free(Path(config.run.output)),
    )


def notes(estimate: Estimate, config: Config, source: Source, dataset: Dataset, device: torch.device) -> list[str]:
    """What does not fit, each with what to do."""
    found = []
    if not estimate.fits:
        bucket = heaviest_bucket(config, dataset)
        forecast = _forecast(source, bucket, device, estimate.memory, predict(config, source, bucket, device))
        what = f"This run needs {size_text(estimate.memory)} at the peak, and {size_text(estimate.available)} are free"
        found.append(f"{what}: {advise(config, forecast, estimate.available)}")
    if estimate.disk > estimate.disk_free:
        found.append(
            f"This run writes {size_text(estimate.disk)}, and the disk has {size_text(estimate.disk_free)}: "
            "make room, lower checkpoint.keep, or choose another run.output"
        )
    return found


def available(device: torch.device) -> int:
    """Bytes that this process may have on a device, with those it has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def _too_large(
    config: Config, source: Source, dataset: Dataset, device: torch.device, memory: int, need: Need
) -> OutOfMemoryError:
    room = available(device)
    parts = f"weights {size_text(need.weights)}, activations {size_text(max(need.activations, need.pictures))}"
    what = f"this run needs about {size_text(memory)} of memory ({parts})"
    fix = advise(config, _forecast(source, heaviest_bucket(config, dataset), device, memory, need), room)
    return OutOfMemoryError(f"{what}, and {size_text(room)} are free", fix, "Nothing was trained, and nothing is lost.")


def _forecast(source: Source, bucket: Size, device: torch.device, memory: int, need: Need) -> Callable[[Config], int]:
    """The peak with other settings: what was found for these, and the difference that shapes make."""
    width, height = bucket

    def forecast(config: Config) -> int:
        side = min(1.0, config.data.resolution / (width * height) ** 0.5)
        step = source.pixel_factor * 8
        bucket = (max(step, int(width * side) // step * step), max(step, int(height * side) // step * step))
        return memory + predict(config, source, bucket, device).total - need.total

    return forecast


def _held(session: Session) -> int:
    """Bytes of the frozen weights, as they are held."""
    mine = {id(parameter) for parameter in session.parameters()}
    models = [session.bundle.unet, session.bundle.vae, *session.bundle.text_encoders.values()]
    resting = {id(module) for module in session.resting.modules}
    tensors = [t for model in models if id(model) not in resting for t in (*model.parameters(), *model.buffers())]
    return sum(tensor.nbytes for tensor in tensors if id(tensor) not in mine)


def _mean_share(dataset: Dataset, measured: Size) -> float:
    """Mean pixels of a picture over those of the measured bucket: how much of the measured time the mean step takes."""
    areas = [bucket[0] * bucket[1] for item in dataset.items for bucket in item.buckets]
    return sum(areas) / len(areas) / (measured[0] * measured[1])


def _disk(config: Config, saves: int, checkpoint: int, numbers: int) -> int:
    """Bytes of the checkpoints that lie side by side while one is replaced, and of exports."""
    kept, cycles = config.checkpoint, config.relora.cycles(config.train.steps)
    exports = min(saves, kept.keep_exports + 1 if kept.keep_exports else saves) if kept.export else 1
    return min(saves, kept.keep + 1) * checkpoint + exports * cycles * numbers * DTYPES[config.export.dtype].itemsize


def _cache_size(config: Config, dataset: Dataset, batch: Batch) -> int:
    """Bytes of the latents of all views (mean and standard deviation) and of text states."""
    width, height = batch.frames.target
    views = (*Views(dataset).all(), *Views(dataset.validation, plain=True).all())
    pixels = sum(view.bucket[0] * view.bucket[1] for view in views)
    latents = 2 * batch.latents[0].nbytes * pixels / (width * height)
    states = batch.text_states if isinstance(batch.text_states, tuple) else (batch.text_states,)
    text = sum(part[0].nbytes for part in states if part is not None) * len(phrasing.texts(dataset, config.keeps_prior) or ())
    return round(latents + text)


def _disk_free(folder: Path) -> int:
    """Bytes free where the folder is, or would be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.resolve().parents) if place.exists())).free
