"""A run that has a folder and settings, and nothing more yet."""

from __future__ import annotations

import pytest

from trainer.run import RunDir


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "one")
    run.path.mkdir()
    run.config_file.touch()
    return run
