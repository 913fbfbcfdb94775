"""A safetensors file through its header: names, shapes and text entries at once, single tensors on demand. Runs no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from morelora.formats.original import Place
from trainer.errors import InputError

PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
"""Endings of files that can run code when they are opened."""


class Weights:
    """The header of one file. ``shapes`` and ``read`` know tensors by the names of ``view``, once that has been called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path) as handle:
            keys: list[str] = handle.keys()
            self.shapes: dict[str, tuple[int, ...]] = {key: tuple(handle.get_slice(key).get_shape()) for key in keys}
            self.metadata: dict[str, str] = handle.metadata() or {}
        self._own = {key: key for key in self.shapes}

    def view(self, names: Mapping[str, str]) -> None:
        """Rename tensors, ``their name -> the name we look for``; others keep theirs."""
        self._own = {names.get(key, key): own for key, own in self._own.items()}
        self.shapes = {names.get(key, key): shape for key, shape in self.shapes.items()}

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """The open file, for ``read``."""
        with _opened(self.path) as handle:
            yield handle

    def read(self, handle: Any, place: Place, shape: torch.Size) -> Tensor:
        """The tensor at ``place`` in the form ``shape``: a third of the rows, transposed, or a 1x1 kernel without its ones."""
        part = handle.get_slice(self._own[place.key])
        rows = part.get_shape()[0] if part.get_shape() else 0
        if place.third is not None:
            tensor = part[place.third * rows // 3 : (place.third + 1) * rows // 3]
        else:
            tensor = handle.get_tensor(self._own[place.key])
        tensor = tensor.T if place.is_transposed else tensor
        return tensor.squeeze().reshape(shape) if tensor.dim() > len(shape) and tensor.numel() == shape.numel() else tensor


def sha256(path: Path) -> str:
    """Of the whole file; read once a process as long as size and time of change stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    refuse_pickle(path)
    try:
        handle = safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} {_damage(path)} ({error})", "copy or download it again") from error
    with handle as opened:
        yield opened


def refuse_pickle(path: Path) -> None:
    """Raises ``InputError`` for the endings of pickles."""
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run code when it is opened; it is not read",
            "get the model as .safetensors (most model sites offer both), or convert it on a machine that may run its code",
        )


def _damage(path: Path) -> str:
    try:
        start = path.open("rb").read(2)
    except OSError:
        return "cannot be read"
    if start in (b"PK", b"\x80\x02", b"\x80\x04"):
        return "is a pickle under another name, which can run code when it is opened; it is not read"
    return "is damaged or not a safetensors file"
