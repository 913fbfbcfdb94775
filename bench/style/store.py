"""Results of trials in one JSON file, written whole after each of them, so that a cut run goes on where it stopped."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from bench.style.held import Scores
from bench.style.trial import BOUNDS, Result, Trial
from morelora.atomic import write_text


class Store:
    """The results of a file, and where new ones go."""

    def __init__(self, file: Path) -> None:
        self.file = file
        raw = json.loads(file.read_text(encoding="utf-8"))["results"] if file.is_file() else []
        self.results = [Result(**(row | {"scores": Scores(**row["scores"])})) for row in raw]

    def add(self, results: Iterable[Result]) -> None:
        """Keep results in place of those of the same style, preset and seed, and write the file."""
        new = {_place(result): result for result in results}
        kept = [result for result in self.results if _place(result) not in new]
        self.results = sorted([*kept, *new.values()], key=_place)
        about = {
            "torch": torch.__version__,
            "threads of a trial": 1,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join(json.dumps(asdict(result)) for result in self.results)
        write_text(self.file, f'{{"about": {json.dumps(about)}, "results": [\n{rows}\n]}}\n')

    def has(self, trial: Trial) -> bool:
        """Whether the trial's result is here and still of what its preset sets today."""
        wanted = (trial.style, trial.preset, trial.seed, trial.digest)
        return any((result.style, result.what, result.seed, result.digest) == wanted for result in self.results)

    def has_bounds(self, style: str, concepts: int) -> bool:
        """Whether base and truth of a style have been judged on so many concepts."""
        found = {result.what for result in self.results if result.style == style and result.digest == str(concepts)}
        return set(BOUNDS) <= found


def _place(result: Result) -> tuple[str, str, int]:
    return result.style, result.what, result.seed
