"""Safetensors files, read with distrust and written whole.

A file is ``8 bytes length | JSON header | data``. Before a byte of it is trusted, its size, its header and the number
of tensors are checked; nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from morelora import atomic
from morelora.errors import FormatError

MAX_HEADER = 10_000_000
"""Bytes; the header of a large adapter has about 300,000."""
MAX_TENSORS = 20_000
HASH_KEY = "sshs_model_hash"
WHOLE = (".on_input", ".alpha")
"""Endings of the tensors that LyCORIS writes as whole numbers."""
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
DAMAGED = "the file is damaged or not fully copied: copy or download it again"


def read_header(path: Path) -> dict[str, Any]:
    """The header's JSON, with its data offsets checked against the file's size.

    Raises:
        FormatError: not a readable safetensors file; the message names the file, the reason and the way out.
    """
    path = Path(path)
    if "\0" in str(path):
        raise FormatError(f"{str(path)!r} is no path: it holds a character that no path can have")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(PICKLES):
                raise FormatError(
                    f"{path} is a pickle (.ckpt, .pt, .bin), which can run code when it is opened: convert it to "
                    ".safetensors with a program you trust and load that"
                )
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= size - 8:
                raise FormatError(f"{path} is no whole safetensors file ({size} bytes): {DAMAGED}")
            if length > MAX_HEADER:
                raise FormatError(f"{path} has a header of {length} bytes; more than {MAX_HEADER} are not safe to read")
            text = stream.read(length)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}): check the path and the rights") from error
    return _checked_header(path, text, size - 8 - length)


def _checked_header(path: Path, text: bytes, data_size: int) -> dict[str, Any]:
    try:
        header = json.loads(text)
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        fits = end == data_size and isinstance(header.get("__metadata__", {}), dict)
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} has no readable safetensors header: {DAMAGED}") from error
    if len(entries) > MAX_TENSORS:
        raise FormatError(f"{path} has {len(entries)} tensors, and no adapter has {MAX_TENSORS}: is it a whole model?")
    if not fits:
        raise FormatError(f"{path} should hold {end} bytes of tensors but holds {data_size}: {DAMAGED}")
    return header


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries of the header. Raises ``FormatError``."""
    return {str(key): str(value) for key, value in read_header(path).get("__metadata__", {}).items()}


def read(path: Path, finite: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors, on the CPU and as they are stored, and the metadata.

    Args:
        path: the file.
        finite: whether to refuse NaN and infinite values.

    Raises:
        FormatError: as ``read_header``, or a tensor is not of floating point, or NaN or infinite (it is named).
    """
    metadata = read_metadata(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read ({error}): {DAMAGED}") from error
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and not key.endswith(WHOLE):
            raise FormatError(f"{path}: {key} holds {tensor.dtype}, but an adapter holds floating-point numbers")
        if finite and not torch.isfinite(tensor.float()).all():
            raise FormatError(f"{path}: {key} holds NaN or infinite values: the training that wrote it had diverged")
    return tensors, metadata


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file whole or not at all, with the hash of its data under ``sshs_model_hash``.

    Raises:
        OSError: the file cannot be written; whatever stood at ``path`` is as before.
    """
    tensors = _apart(tensors)
    entries = {**metadata, HASH_KEY: _hash_after_header(save(tensors))}
    content = save(tensors, entries)

    def fill(temporary: Path) -> None:
        # safetensors' own save_file hides a full disk behind an error class that is no OSError.
        temporary.write_bytes(content)

    atomic.write_file(Path(path), fill)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each in memory of its own, as a file has it: of layers that share a tensor every one is written with it."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def data_hash(path: Path) -> str:
    """SHA-256 of the bytes after the header, in lower-case hex: the model's hash of A1111 and Civitai (AutoV3)."""
    return _hash_after_header(Path(path).read_bytes())


def _hash_after_header(content: bytes) -> str:
    length = struct.unpack("<Q", content[:8])[0]
    return hashlib.sha256(memoryview(content)[8 + length :]).hexdigest()
