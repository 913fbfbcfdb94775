"""Base models in miniature on disk, made once, and adapter files for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from morelora import AdapterSet
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.names import dotted
from morelora.formats.precision import cast
from tests.morelora.formats import sd
from tests.trainer import miniatures

Made = Callable[..., tuple[Path, AdapterSet]]
SD1 = {"ss_base_model_version": "sd_v1"}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """``bases("sd2", "folder")``, ``bases("sdxl", "file")``."""
    folder = tmp_path_factory.mktemp("bases")

    def get(family: str, kind: str) -> Path:
        path = folder / (family if kind == "folder" else f"{family}.safetensors")
        if not path.exists():
            miniatures.save_folder(family, path) if kind == "folder" else miniatures.save_single(family, path)
        return path

    return get


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """``made("a", form="webui", rank=4)``: a file and the adapters in it, on a thin UNet's attention."""

    def make(stem: str, form: str = "webui", **settings: Any) -> tuple[Path, AdapterSet]:
        models = {"unet": sd.small()["unet"]}
        adapters = sd.trained(models, **{"layers": "attention"} | settings)
        path = tmp_path / f"{stem}.safetensors"
        write(path, cast(FORMS[form](adapters), torch.float32), SD1)
        return path, adapters

    return make


def changes(adapters: AdapterSet) -> dict[str, Tensor]:
    """Each layer's change under the name that files have."""
    return {dotted(name): change.detach() for name, change in adapters.deltas()}


def close(found: Tensor, expected: Tensor, limit: float = 1e-5) -> bool:
    """Whether ``||found - expected|| <= limit ||expected||``."""
    return float((found - expected).norm()) <= limit * float(expected.norm())
