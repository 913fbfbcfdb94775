"""The folder of a trial, one prompt drawn by the base model alone and with adapters. Imports no torch.

``trial.toml  state.json  log.txt  cancelled  base.png  with.png``: the trainer writes what it draws, the browser what is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOADING, BASE, ADAPTED, DONE = STAGES = ("loading", "base", "with", "done")


class TrialDir:
    """One trial's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "trial.toml"
        self.state_file = path / "state.json"
        self.log_file = path / "log.txt"
        self.cancel_file = path / "cancelled"
        self.base = path / "base.png"
        self.adapted = path / "with.png"

    def state(self) -> dict[str, Any]:
        """``stage`` (of ``STAGES``), and ``step`` of ``steps`` while a picture is drawn; empty before it began."""
        try:
            found = json.loads(self.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("stage") in STAGES else {}
