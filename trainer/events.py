"""What a run says: one frozen dataclass an event, one JSON line each in ``events.jsonl``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events; ``time`` is seconds since the epoch."""

    time: float = field(default_factory=time.time, kw_only=True)

    def to_json(self) -> str:
        """One line: ``{"event": "Step", ...}``."""
        return json.dumps({"event": type(self).__name__, **asdict(self)}, ensure_ascii=False)


@dataclass(frozen=True)
class Started(Event):
    """The run begins or goes on; ``plan`` is the statement of what will be trained."""

    plan: dict[str, Any]
    step: int


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step is done. ``loss`` is the mean over its pictures, ``rate`` in steps per second.

    ``lr`` is the learning rate of the optimiser's first group, ``rates`` those of all its groups. ``grad_norm`` is that before
    clipping; it is not finite where the scaler of fp16 left the step out.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    rate: float
    rates: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Validated(Event):
    """The loss on the held-out pictures after ``step`` steps; ``by_bin`` by timesteps, least noise first: ``{"0-249": 0.1}``.

    Step 0 is the base model. A range in which no timestep fell is left out.
    """

    step: int
    loss: float
    by_bin: dict[str, float]


@dataclass(frozen=True)
class Searched(Event):
    """After the last step one of several forms of the adapters was taken: ``losses`` of each, and which it is."""

    step: int
    procedure: str
    losses: dict[str, float]
    chosen: str


@dataclass(frozen=True)
class Preview(Event):
    """Preview pictures were written, one for each prompt; ``files`` are relative to the run folder."""

    step: int
    files: list[str]
    prompts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint (``kind = "checkpoint"``), an adapter file (``"export"``) or a word's (``"embedding"``) is whole."""

    step: int
    kind: str
    file: str


@dataclass(frozen=True)
class Formed(Event):
    """The adapter was brought into a form that was chosen, or is approximate; ``errors`` are relative, by layer."""

    step: int
    form: str
    statement: str
    errors: dict[str, float]


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know that does not stop the run."""

    message: str


@dataclass(frozen=True)
class Linted(Event):
    """What the lint found in pictures and captions before the training: ``findings`` as in ``findings.json``."""

    findings: list[dict[str, Any]]


@dataclass(frozen=True)
class Verified(Event):
    """A reader loaded the exported file back; ``error`` is the change's largest relative error, None if it cannot read it."""

    reader: str
    layers: int
    error: float | None
    message: str


@dataclass(frozen=True)
class Finished(Event):
    """The run is done, or stopped (``reason`` says why) with everything saved."""

    step: int
    file: str
    reason: str = "done"


@dataclass(frozen=True)
class Failed(Event):
    """The run ended with an error."""

    code: int
    message: str
