"""Adapter files: forms to write, every common one to read. A new exact form is a file here and a line in ``FORMS``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from morelora.errors import FormatError
from morelora.formats import auto, dense, peft, plain, sidecar, svd, webui
from morelora.inject import AdapterSet
from morelora.lowrank import Cut

FORMS: dict[str, Callable[[AdapterSet], dict[str, Tensor]]] = {
    "webui": webui.encode,
    "lora": plain.encode,
    "diffusers": peft.encode,
    "diff": dense.encode,
    "sidecar": sidecar.encode,
}
"""The exact forms. ``"svd"`` is the approximate one, and ``"auto"`` chooses."""
EXPORT = "morelora.export"
"""Metadata entry: the form as JSON, why it was chosen, and the errors of an approximate one."""


@dataclass(frozen=True)
class Encoded:
    """An adapter as a file's tensors."""

    form: str
    tensors: dict[str, Tensor]
    reason: str = ""
    """Why this form, where it was chosen."""
    errors: dict[str, float] = field(default_factory=dict)
    """``||D - D_file|| / ||D||`` of each layer, where the form is approximate."""

    @property
    def largest_error(self) -> float:
        """0 for an exact form."""
        return max(self.errors.values(), default=0.0)

    def metadata(self) -> dict[str, str]:
        """The form, and what it costs, as text entries of the file; ``recorded`` reads them back."""
        told: dict[str, Any] = {"form": self.form}
        if self.reason:
            told["reason"] = self.reason
        if self.errors:
            told |= {"largest_error": self.largest_error, "errors": self.errors}
        entries = {EXPORT: json.dumps(told)}
        return entries | {sidecar.ENTRY: sidecar.notice(self.tensors)} if self.form == "sidecar" else entries

    @property
    def statement(self) -> str:
        """The choice and the error in one sentence; empty where there was neither."""
        chosen = f"export.format = 'auto' wrote the form '{self.form}': {self.reason}" if self.reason else ""
        if not self.errors:
            return chosen
        worst = max(self.errors, key=lambda name: self.errors[name])
        mean = sum(self.errors.values()) / len(self.errors)
        error = f"relative error of the change: {self.errors[worst]:.2g} at most ({worst}), {mean:.2g} on average"
        return f"{chosen}; {error}" if chosen else f"the form 'svd' is approximate; {error}"


def recorded(metadata: Mapping[str, str]) -> Encoded:
    """What a file's metadata tells of its form, without the tensors; of a file of others nothing. Raises ``FormatError``."""
    try:
        told = json.loads(metadata.get(EXPORT, "{}"))
        errors = {str(name): float(error) for name, error in told.get("errors", {}).items()}
        return Encoded(str(told.get("form", "")), {}, str(told.get("reason", "")), errors)
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"the metadata entry {EXPORT} is damaged ({error}): write the file again") from error


def encode(adapters: AdapterSet, form: str, readers: Iterable[str] = (), cut: Cut | None = None) -> Encoded:
    """``adapters`` in a form.

    Args:
        adapters: what the file is to hold.
        form: a key of ``FORMS``, ``"svd"``, or ``"auto"``.
        readers: for ``"auto"``: the programs that are to read the file, keys of ``formats.readers.READERS``.
        cut: for ``"svd"``, and ``"auto"`` where that is all that is left.

    Raises:
        FormatError: the form cannot hold these adapters; the message names the way out.
    """
    form, reason = auto.choose(adapters, readers) if form == "auto" else (form, "")
    if form == "svd":
        tensors, errors = svd.encode(adapters, cut or Cut())
        return Encoded(form, tensors, reason, errors)
    return Encoded(form, FORMS[form](adapters), reason)


def rehearse(adapters: AdapterSet, form: str, readers: Iterable[str] = ()) -> Encoded:
    """As ``encode``, before there is anything to write: a form that is costly to make is only asked whether it could."""
    form, reason = auto.choose(adapters, readers) if form == "auto" else (form, "")
    refuse = {"svd": svd.refuse, "diff": sidecar.refuse_unmergeable}.get(form)
    if refuse is None:
        return Encoded(form, FORMS[form](adapters), reason)
    refuse(adapters)
    return Encoded(form, {}, reason)
