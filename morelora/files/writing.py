"""Write an adapter file, read it back, and say how far its changes are from those that were meant."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morelora.errors import FormatError, NonFiniteTensorError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import GIVE_BASE, Opened, change_of, open_adapter
from morelora.files.progress import progress
from morelora.formats import EXPORT, Encoded, encode
from morelora.formats.container import HASH_KEY, write
from morelora.formats.network import network_metadata
from morelora.formats.precision import cast
from morelora.formats.sidecar import ENTRY
from morelora.inject import AdapterSet
from morelora.lowrank import Cut

MADE = "morelora.made"
"""Metadata entry: the command that made a file out of others, as JSON."""
NETWORK = "ss_network_"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Expected = Callable[[str], Tensor]
"""Layer name -> the change that is meant. Raises ``FormatError`` where it depends on weights that are not there."""


@dataclass(frozen=True)
class Output:
    """What file to write."""

    path: Path
    form: str = "webui"
    dtype: torch.dtype = torch.float16
    readers: tuple[str, ...] = ()
    cut: Cut | None = None
    """For the approximate form."""


@dataclass(frozen=True)
class Report:
    """What was written, and how far it is from what was meant."""

    path: Path
    form: str
    ranks: dict[int, int]
    """Layers by rank."""
    errors: dict[str, float]
    """``||D_file - D|| / ||D||`` by layer, as read back."""
    unmeasured: int = 0
    """Layers whose change depends on a base that was not given."""
    notes: list[str] = field(default_factory=list)

    @property
    def error(self) -> float:
        """The largest."""
        return max(self.errors.values(), default=0.0)

    def lines(self) -> list[str]:
        """The report in sentences."""
        size = self.path.stat().st_size / (1 << 20)
        ranks = ", ".join(f"rank {rank} on {count}" for rank, count in sorted(self.ranks.items()))
        said = [f"Wrote {self.path} ({size:.2f} MiB, form {self.form}{f'; {ranks}' if ranks else ''})"]
        if self.errors:
            worst = max(self.errors, key=lambda name: self.errors[name])
            mean = sum(self.errors.values()) / len(self.errors)
            said += [
                f"Relative error of the change on {len(self.errors)} layers, file read back: "
                f"{self.error:.2g} at most ({worst}), {mean:.2g} on average"
            ]
        if self.unmeasured:
            said += [f"Not measured: {self.unmeasured} layers whose change depends on the base's weights (--base measures them)"]
        return said + self.notes


def write_adapter(
    adapters: AdapterSet, output: Output, metadata: Mapping[str, str], expected: Expected, base: Checkpoint | None = None
) -> Report:
    """Write ``adapters``, and compare the file with what was meant.

    Args:
        adapters: what the file is to hold.
        output: where, in which form and precision.
        metadata: text entries that do not depend on the form.
        expected: the changes that are meant.
        base: the model that the file is for, if it is at hand.

    Raises:
        FormatError: the form cannot hold them, or a number is too large for the precision.
        OSError: the file cannot be written.
    """
    if not len(adapters):
        raise FormatError(f"there is nothing to write into {output.path}: no layer is changed")
    encoded = _encode(adapters, output, base)
    entries = dict(metadata) | encoded.metadata()
    if encoded.form not in ("diffusers", "sidecar"):
        entries |= network_metadata(adapters, encoded)
    write(output.path, cast(encoded.tensors, output.dtype), entries)
    notes = [f"Form {encoded.form}: {encoded.reason}"] if encoded.reason else []
    return _compared(open_adapter(output.path, base), encoded.form, expected, notes)


def _encode(adapters: AdapterSet, output: Output, base: Checkpoint | None) -> Encoded:
    """The tensors. What depends on weights that are not there has come out as NaN."""
    try:
        encoded = encode(adapters, output.form, output.readers, output.cut)
        unknown = [key for key, tensor in encoded.tensors.items() if not torch.isfinite(tensor).all()]
        if unknown:
            raise NonFiniteTensorError(f"{unknown[0]} holds NaN or infinite values")
    except NonFiniteTensorError as error:
        why = str(error) if base else f"the form {output.form!r} of this adapter depends on the base's weights: {GIVE_BASE}"
        raise FormatError(why) from error
    return encoded


@torch.no_grad()
def _compared(written: Opened, form: str, expected: Expected, notes: list[str]) -> Report:
    errors, unmeasured = {}, 0
    ranks: Counter[int] = Counter()
    for name, layer in progress(written.adapters.layers.items(), "reading back"):
        factors = layer.adapter.plain.factors()
        if factors is not None:
            ranks[factors[0].shape[1]] += 1
        try:
            meant = expected(name)
            size = float(meant.norm())
            errors[name] = float((change_of(layer).view_as(meant) - meant).norm()) / size if size else 0.0
        except FormatError:
            unmeasured += 1
    return Report(written.path, form, dict(ranks), errors, unmeasured, notes)


def kept_metadata(files: list[Opened], command: str, **told: Any) -> dict[str, str]:
    """The text entries that a file made of others keeps: those that are alike in all, without what told of the tensors.

    Args:
        files: what it was made of; of several, the recipe of none holds any more.
        command: what made it.
        told: what more to tell of that.
    """
    first, *others = (opened.metadata for opened in files)
    gone = {HASH_KEY, "sshs_legacy_hash", "modelspec.hash_sha256", EXPORT, ENTRY, "lora_adapter_metadata"}
    gone |= {"morelora", "ss_output_name", "modelspec.title"} if others else set()
    kept = {
        key: value
        for key, value in first.items()
        if key not in gone and not key.startswith(NETWORK) and all(other.get(key) == value for other in others)
    }
    made = {"command": command, "from": [opened.path.name for opened in files], **told}
    return kept | {MADE: json.dumps(made, ensure_ascii=False)}
