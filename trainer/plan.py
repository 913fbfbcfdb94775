"""The statement of what a run will train: made before the first step, shown, and kept in ``events.jsonl``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from morelora import AdapterSet, Target
from trainer import memory
from trainer.config import Config
from trainer.data import Dataset, Dealing, Views, phrasing
from trainer.data.epoch import notes as epoch_notes
from trainer.data.problems import count, shown
from trainer.embedding import Word
from trainer.export import check
from trainer.models import Bundle
from trainer.objective import remarks
from trainer.optim import effective_strength, learning_rate, usual_range
from trainer.saving import Saving


@dataclass(frozen=True)
class TrainedPart:
    """One component and algorithm: ``unet``, ``loha``, 127 layers (a word: vectors), 268,000 parameters at a learning rate."""

    component: str
    algorithm: str
    layers: int
    parameters: int
    lr: float
    strength: float | None = None
    """``lr * sqrt(alpha / rank)``; None where it says nothing."""
    usual: tuple[float, float] | None = None
    """Between what values the strength lies in recipes for this algorithm and base."""

    def remark(self) -> list[str]:
        """What to change where the strength is outside the usual range."""
        if self.strength is None or self.usual is None or self.usual[0] <= self.strength <= self.usual[1]:
            return []
        side, fix = ("below", "raise") if self.strength < self.usual[0] else ("above", "lower")
        usual = f"{self.usual[0]:.3g} to {self.usual[1]:.3g}"
        return [
            f"{self.component}, {self.algorithm}: the effective strength lr x sqrt(alpha / rank) = {self.strength:.3g} is {side} "
            f"what is usual ({usual}): {fix} the learning rate or alpha if the result is not what you want"
        ]


@dataclass(frozen=True)
class Plan:
    """What will be trained, on what, for how long. ``notes`` are consequences that the user should know."""

    name: str
    base: str
    family: str
    objective: str
    device: str
    precision: str
    trained: list[TrainedPart]
    pictures: int
    captions: dict[str, int]
    """Pictures by the source of their caption: ``.txt``, ``.caption``, ``file name``."""
    buckets: dict[str, int]
    """Pictures by bucket, ``64x64`` (width x height)."""
    dropped: int
    steps: int
    batch_size: int
    """Pictures in one step: batch size x accumulation x processes."""
    epochs: float
    checkpoints: int
    notes: list[str] = field(default_factory=list)
    estimate: dict[str, Any] | None = None
    """``trainer.estimate.Estimate``, unless ``device.estimate = false``."""

    def with_word(self, word: Word | None, dataset: Dataset) -> Plan:
        """The same with what is trained of a word."""
        if word is None:
            return self
        parts = [
            TrainedPart(name, f"word {word.vectors.word!r}", len(part), part.numel(), word.config.lr)
            for name, part in word.vectors.vectors().items()
        ]
        notes = [*self.notes, *word.notes(dataset, alone=not self.trained)]
        return replace(self, trained=[*self.trained, *parts], notes=notes)


def state_plan(
    config: Config, bundle: Bundle, dataset: Dataset, targets: list[Target], adapters: AdapterSet, processes: int
) -> Plan:
    """The plan of a run that is ready to start. Raises ``InputError`` where its file could not be written as asked."""
    report, steps = dataset.report, config.train.steps
    batch = config.train.batch_size * config.train.accumulation * processes
    views, dealing = Views(dataset), Dealing.of(config)
    batches_per_epoch = dealing.order(views).batches_per_epoch
    epochs = steps * config.train.accumulation * processes / batches_per_epoch
    trained = trained_parts(config, targets, adapters, bundle.unet.config.block_out_channels[0])
    return Plan(
        name=config.run.name,
        base=bundle.path.name,
        family=bundle.family,
        objective=bundle.schedule.objective,
        device=str(bundle.device),
        precision=config.train.precision,
        trained=trained,
        pictures=report.pictures,
        captions=report.captions,
        buckets=report.buckets,
        dropped=report.dropped,
        steps=steps,
        batch_size=batch,
        epochs=round(epochs, 2),
        checkpoints=Saving.of(config, processes, batches_per_epoch).count(),
        notes=[
            *bundle.notes,
            *report.notes,
            *views.notes(),
            *epoch_notes(views, dealing),
            *phrasing.notes(dataset, config.reads_captions_live, config.keeps_prior),
            *_cut_captions(bundle, dataset),
            *_unread_layers(config, bundle),
            *_consequences(config),
            *memory.notes(config.device, bundle.device),
            *(text for part in trained for text in part.remark()),
            *remarks(config, bundle.schedule),
            *_remarks(adapters),
            *check(adapters, config.export),
        ],
    )


def trained_parts(config: Config, targets: list[Target], adapters: AdapterSet, width: int) -> list[TrainedPart]:
    """What is alike in component, algorithm, rate and scale is one part."""
    layers: Counter[tuple[str, str, bool, float, float]] = Counter()
    parameters: Counter[tuple[str, str, bool, float, float]] = Counter()
    held = adapters.by_layer()
    for target in targets:
        adapter, lr = adapters.layers[target.name].adapter, learning_rate(target, config.optimizer)
        key = (target.component, target.algorithm, target.decompose is not None, lr, adapter.plain.scale)
        layers[key] += 1
        parameters[key] += sum(p.numel() for p in held[target.name])
    return [
        TrainedPart(
            component=component,
            algorithm=algorithm + ("+dora" if decomposed else ""),
            layers=layers[component, algorithm, decomposed, lr, scale],
            parameters=parameters[component, algorithm, decomposed, lr, scale],
            lr=lr,
            strength=effective_strength(config.optimizer.name, lr, scale),
            usual=usual_range(algorithm, component, decomposed, width),
        )
        for component, algorithm, decomposed, lr, scale in layers
    ]


def _cut_captions(bundle: Bundle, dataset: Dataset) -> list[str]:
    """Captions whose end the text encoder cannot see."""
    cut = [(item, lost) for item in dataset.items if (lost := bundle.overflow(item.caption))]
    if not cut:
        return []
    item, lost = cut[0]
    what = f"{count(len(cut), 'caption')} longer than {bundle.max_length} tokens"
    return [f"{what}; of {shown(item.path.name)} this is not read: {lost!r} (model.caption_chunks gives more room)"]


def _unread_layers(config: Config, bundle: Bundle) -> list[str]:
    """Text layers whose output nothing reads."""
    counts = {name: bundle.unread_layers(name) for name in bundle.text_encoders} if config.train.text_encoder else {}
    return [
        f"{name}: nothing reads its last {count(unread, 'layer')}; no adapter there" for name, unread in counts.items() if unread
    ]


def _remarks(adapters: AdapterSet) -> list[str]:
    """What the algorithms say of single layers, counted."""
    counts = Counter((adapter.name, adapter.remark()) for _, adapter in adapters)
    notices = dict.fromkeys(adapter.plain.notice for _, adapter in adapters if adapter.plain.notice)
    remarks = [f"{name} on {count} of {len(adapters)} layers: {text}" for (name, text), count in counts.items() if text]
    return [*notices, *remarks]


def _consequences(config: Config) -> list[str]:
    """Effects of the settings that a user may not expect."""
    notes = []
    if not config.train.unet and config.train.text_encoder:
        notes.append("The UNet is not trained: only the text encoder is.")
    if config.train.ema:
        notes.append("The exported adapter is the average of the training (train.ema).")
    if config.optimizer.name == "prodigy" and config.optimizer.lr < 0.1:
        notes.append(f"Prodigy finds the rate itself and multiplies it by optimizer.lr = {config.optimizer.lr:g}; 1 is usual.")
    return notes
