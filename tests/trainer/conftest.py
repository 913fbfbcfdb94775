"""The miniatures on disk, made once for all tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer import miniatures


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """By family and form (``folder`` or ``file``)."""
    root = tmp_path_factory.mktemp("miniatures")
    folders = {(family, "folder"): miniatures.save_folder(family, root / family) for family in miniatures.FAMILIES}
    files = {(family, "file"): miniatures.save_single(family, root / f"{family}.safetensors") for family in miniatures.FAMILIES}
    return folders | files
