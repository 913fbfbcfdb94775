"""One trial: a preset trained on a style with a seed, its file loaded, its pictures judged; and the bounds: base and truth."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import morelora
from bench.judge import Judge
from bench.style.held import STYLES, Held, Scores, held_out, measure, sample, through_vae
from trainer import presets, settings
from trainer.config import Config, ModelConfig
from trainer.events import Event, Started, Step
from trainer.models import Bundle, load
from trainer.run import RunDir
from trainer.train import train

BOUNDS = ("base", "true, through the VAE", "true")


@dataclass(frozen=True)
class Trial:
    """What is tried. ``changes`` are assignments ``key=value`` upon the preset; ``count`` bounds the held-out concepts."""

    style: str
    preset: str
    seed: int
    changes: tuple[str, ...] = ()
    count: int | None = None

    @property
    def digest(self) -> str:
        """Of everything that the preset sets and the trial changes: a result under another digest is out of date."""
        file = Path(self.preset) if self.preset.endswith(".toml") else presets.FOLDER / f"{self.preset}.toml"
        told = json.dumps([file.read_text(encoding="utf-8"), sorted(self.changes), self.count])
        return hashlib.sha256(told.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Result:
    """What came of it; times are CPU seconds of one thread, which other processes disturb least."""

    style: str
    what: str
    """The preset, or one of ``BOUNDS``."""
    seed: int
    digest: str
    scores: Scores
    seconds: float = 0.0
    """Of the whole training: caching, steps, export."""
    step_seconds: float = 0.0
    parameters: int = 0
    file_bytes: int = 0


class Clock:
    """Listens to a run: what it trains, and CPU seconds a step, the first left out."""

    def __init__(self) -> None:
        self.parameters = 0
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.parameters = sum(group["parameters"] for group in event.plan["trained"])
        elif isinstance(event, Step):
            self._last = (event.step, time.process_time())
            self._first = self._first or self._last

    @property
    def step_seconds(self) -> float:
        if self._first is None or self._first == self._last:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


@functools.cache
def tools() -> tuple[Judge, Bundle]:
    """The judge and the base, once a process."""
    return Judge.load(), load(ModelConfig())


def run_trial(trial: Trial) -> tuple[Result, Tensor]:
    """Train, load the exported file with ``morelora.load``, sample, judge. The pictures come with the scores."""
    judge, bundle = tools()
    held, digest = held_out(trial.style, judge, trial.count), trial.digest
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(trial.preset, trial.style, Path(folder), [*trial.changes, f"train.seed={trial.seed}"])
        clock, began = Clock(), time.process_time()
        run = train(config, listener=clock)
        seconds = time.process_time() - began
        files, taken = take(bundle, run, config)
        pictures = sample(bundle, held.captions, config)
        for each in reversed(taken):
            each.remove()
        size = sum(file.stat().st_size for file in files)
    scores = measure(pictures, held, judge)
    return Result(
        trial.style, trial.preset, trial.seed, digest, scores,
        round(seconds, 1), round(clock.step_seconds, 4), clock.parameters, size,
    ), pictures  # fmt: skip


def bounds(style: str, count: int | None) -> list[tuple[Result, Tensor]]:
    """The base model as it is, true pictures through the VAE, true pictures: what the trials stand between."""
    judge, bundle = tools()
    held = held_out(style, judge, count)
    base = sample(bundle, held.captions, config_for("pocket-lora", style, Path("unused"), []))
    pictures = (base, through_vae(bundle, held.truth), held.truth)
    return [(_bound(held, what, each, judge), each) for what, each in zip(BOUNDS, pictures, strict=True)]


def _bound(held: Held, what: str, pictures: Tensor, judge: Judge) -> Result:
    return Result(held.style, what, 0, str(len(held.captions)), measure(pictures, held, judge))


def config_for(preset: str, style: str, output: Path, changes: Iterable[str]) -> Config:
    """A shipped preset on a style's training pictures."""
    trigger = (STYLES / style / "train" / "lion.txt").read_text(encoding="utf-8").split(",")[0]
    assignments = [
        f"data.images={STYLES / style / 'train'}",
        f"data.trigger={trigger}",
        f"run.output={output}",
        f"run.name={style}-{preset}",
        "preview.every=0",
        *changes,
    ]
    return settings.parse(settings.apply(presets.load(preset), assignments), preset)


def take(bundle: Bundle, run: Path, config: Config) -> tuple[list[Path], list[morelora.AdapterSet | morelora.EmbeddingSet]]:
    """A run's adapter and word, whichever it made, loaded from their files."""
    place = RunDir(run)
    adapter, word = place.export_file(config.run.name), place.embedding_file(config.run.name)
    taken: list[morelora.AdapterSet | morelora.EmbeddingSet] = []
    if adapter.is_file():
        taken.append(morelora.load(bundle.pipeline, adapter))
    if word.is_file():
        taken.append(morelora.load_embedding(bundle.pipeline, word))
    return [file for file in (adapter, word) if file.is_file()], taken
