"""Precision and recall: every rule looks at every scene."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bench.lint import faults, words
from bench.lint.scene import Scene, clean, style, view
from trainer.lint.finding import Finding
from trainer.lint.registry import RULES

CLEAN = "nothing"
"""Rule of the scenes that have no fault."""


@dataclass
class Score:
    """Of one rule. ``strengths``: faults and how many were found, by strength; ``alarms``: scene and name of what is no fault.

    The same picture in many scenes is one alarm.
    """

    strengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    alarms: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        return sum(there for there, _ in self.strengths.values())

    @property
    def found(self) -> int:
        return sum(found for _, found in self.strengths.values())

    @property
    def recall(self) -> float:
        return self.found / self.faults if self.faults else 1.0

    @property
    def precision(self) -> float:
        """Of what the rule named, the share that is at fault."""
        return self.found / (self.found + len(self.alarms)) if self.found else 0.0


def scenes() -> Iterator[Scene]:
    """All of them: clean sets first, then every rule's faults."""
    yield Scene(CLEAN, "drawn", view(clean(6)), frozenset())
    for name in ("blueprint", "duotone", "ink"):
        yield Scene(CLEAN, name, view(style(name), resolution=256, batch_size=12), frozenset())
    for family in (
        faults.copies, faults.sizes, faults.softness, faults.frames, faults.overlays, faults.outliers,
        words.captions, words.tags, words.conversions,
    ):  # fmt: skip
        yield from family()


def score(every: Iterable[Scene]) -> dict[str, Score]:
    """Each rule's score over all scenes. A fault that a rule may name beside its own (``Scene.beside``) counts for nothing."""
    scores = {name: Score() for name in RULES}
    for scene in every:
        for name, rule in RULES.items():
            named = {key for finding in rule(scene.view) for key in keys(finding)}
            if name == scene.rule:
                found = named & scene.faults
                scores[name].strengths[scene.strength] = len(scene.faults), len(found)
            wrong = named - scene.faults if name == scene.rule or name in scene.beside else named
            same = {p.name: p.sha256 for p in scene.view.pictures}
            for key in sorted(wrong):
                scores[name].alarms.setdefault(same.get(key, key), (f"{scene.rule}: {scene.strength}", key))
    return scores


def keys(finding: Finding) -> set[str]:
    """What a finding names: its pictures, or the words that it quotes."""
    return set(finding.pictures) or set(re.findall(r"'([^']*)'", finding.problem))
