"""One cache entry is one safetensors file that is whole or absent, and says by a checksum whether it is sound."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from morelora import atomic
from trainer.errors import DiskError

Entry = dict[str, Tensor]
IN_MEMORY = 1 << 30
"""Bytes of entries that one store keeps in memory; those beyond are read from disk when they are asked for."""
LITTER_AGE = 86400
"""Seconds after which a temporary file that a killed process left behind is removed; younger ones may be in use."""


def key_of(*parts: object) -> str:
    """sha256 of the parts, each kept apart from the next."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Entries:
    """Entries of one kind in a folder. Those read or written through it stay in memory as far as they fit."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._memory: dict[str, Entry] = {}
        self._room = IN_MEMORY

    def file(self, key: str) -> Path:
        """Where the entry lies."""
        return self._folder / f"{self._kind}-{key}.safetensors"

    def find(self, key: str) -> Entry | None:
        """The entry, or None where there is none. Raises ``ValueError`` where it is damaged."""
        if key in self._memory:
            return self._memory[key]
        file = self.file(key)
        if not file.is_file():
            return None
        entry = _read(file)
        self._keep(key, entry)
        return entry

    def get(self, key: str) -> Entry:
        """An entry that was there before. Raises ``DiskError`` where it is gone or damaged."""
        try:
            entry = self.find(key)
        except ValueError:
            entry = None
        if entry is None:
            raise DiskError(f"cache file {self.file(key)} is gone or damaged", "start again: it is made anew")
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Write the entry. Raises ``DiskError``, and leaves what was there, where that fails."""
        data = save(entry, metadata={"sha256": _checksum(entry)})

        def write(temporary: Path) -> None:
            temporary.write_bytes(data)

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.write_file(self.file(key), write)
        except OSError as error:
            raise DiskError.of(error, f"the cache in {self._folder}") from error
        self._keep(key, entry)

    def _keep(self, key: str, entry: Entry) -> None:
        size = sum(tensor.nbytes for tensor in entry.values())
        if size <= self._room:
            self._room -= size
            self._memory[key] = entry


def sweep(folder: Path) -> None:
    """Remove what processes killed long ago left behind in the folder."""
    for file in folder.glob(".tmp-*"):
        try:
            if time.time() - file.stat().st_mtime > LITTER_AGE:
                file.unlink()
        except OSError:  # another process was faster, or the folder is read-only: harmless either way
            continue


def _read(file: Path) -> Entry:
    try:
        with safe_open(file, framework="pt") as stream:
            entry = {name: stream.get_tensor(name).clone() for name in sorted(stream.keys())}
            checksum = (stream.metadata() or {}).get("sha256")
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    if checksum != _checksum(entry):
        raise ValueError("its checksum does not fit")
    return entry


def _checksum(entry: Entry) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(entry.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
