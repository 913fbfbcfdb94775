"""The statement of what a run will train: made before the first step, shown, and kept in ``events.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainedPart:
    """One component and algorithm: ``unet``, ``loha``, 127 layers, 268,000 parameters at a learning rate."""

    component: str
    algorithm: str
    layers: int
    parameters: int
    lr: float


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
    effective_strength: float
    """``lr * sqrt(alpha / rank)`` of the UNet: comparable between settings of one algorithm."""
    notes: list[str] = field(default_factory=list)
