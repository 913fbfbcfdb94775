"""Resumable state on disk, whole or absent.

A checkpoint is a folder ``checkpoints/step-000400`` with ``tensors.safetensors``, ``state.json`` and ``manifest.json`` (size and
sha256 of each). It is filled under a temporary name, every file is synced, the folder is renamed, and only then older
ones are pruned: whenever the process dies, the newest whole one is there. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from morelora import atomic
from trainer.errors import DiskError

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass
class Checkpoint:
    """Everything that a run needs to go on: tensors by ``group/name`` and plain values."""

    step: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, group: str, tensors: dict[str, Tensor]) -> None:
        """Add tensors under a group's name."""
        self.tensors |= {f"{group}/{name}": tensor for name, tensor in tensors.items()}

    def group(self, group: str) -> dict[str, Tensor]:
        """The tensors that ``put`` added under ``group``."""
        prefix = f"{group}/"
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Commit a checkpoint, then prune to the newest ``keep``.

    Raises:
        DiskError: it could not be written; what was there before is untouched.
    """
    final = folder / f"step-{checkpoint.step:06d}"
    temporary = folder / f".tmp-{checkpoint.step:06d}-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write(temporary, checkpoint)
        if final.exists():
            _discard(final)
        temporary.rename(final)
        atomic.fsync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        what = f"the checkpoint of step {checkpoint.step}"
        raise DiskError.of(_of_the_system(error), what, "Earlier checkpoints are untouched.") from error
    for old in committed(folder)[keep:]:
        _discard(old)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, folder / TENSORS)
    state = json.dumps({"step": checkpoint.step, "values": checkpoint.values}, indent=1)
    (folder / STATE).write_text(state, encoding="utf-8")
    files = {name: _identity(folder / name) for name in (TENSORS, STATE)}
    (folder / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
    for name in (TENSORS, STATE, MANIFEST):
        atomic.fsync(folder / name)
    atomic.fsync(folder)


def _of_the_system(error: OSError | SafetensorError) -> OSError:
    """The error of the system that safetensors shows as one of its own, which ends with ``(os error 28)``."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, or None, and a line for each damaged one that was passed over.

    Leftovers of saves that were cut off are swept away.
    """
    for leftover in [*folder.glob(".tmp-*"), *folder.glob(".dead-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    skipped: list[str] = []
    for path in committed(folder):
        problem = _problem(path)
        if problem is None:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            return Checkpoint(state["step"], load_file(path / TENSORS), state["values"]), skipped
        skipped.append(f"{path.name} is damaged ({problem}) and was passed over")
    return None, skipped


def committed(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def _identity(file: Path) -> list[Any]:
    with file.open("rb") as stream:
        return [file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _problem(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        wrong = [name for name in (TENSORS, STATE) if files.get(name) != _identity(path / name)]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{wrong[0]} does not match its checksum" if wrong else None


def _discard(path: Path) -> None:
    """Take a folder out of sight in one step, then delete it."""
    dead = path.with_name(f".dead-{path.name}-{os.getpid()}")
    path.rename(dead)
    shutil.rmtree(dead, ignore_errors=True)
