"""A studio of its own over an empty folder; a module whose tests share one has its own fixture."""

from __future__ import annotations

import pytest

from app.studio import Studio


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)
