"""Adapter files: four forms to write, every common one to read. A new form is a file here and a line in ``FORMS``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from morelora.formats import peft, plain, sidecar, webui
from morelora.inject import AdapterSet

FORMS: dict[str, Callable[[AdapterSet], dict[str, Tensor]]] = {
    "webui": webui.encode,
    "lora": plain.encode,
    "diffusers": peft.encode,
    "sidecar": sidecar.encode,
}
