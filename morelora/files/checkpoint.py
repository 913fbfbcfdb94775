"""A base model on disk, by its headers: the layers with their shapes, single tensors on demand, and a copy with other weights.

A folder in diffusers form, or one file in the original layout. A copy has the same tensors in the same precision, so it is made
by copying the bytes and writing over those that change: no more than one layer is ever in memory.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from morelora import atomic
from morelora.errors import FormatError
from morelora.formats.container import read_header
from morelora.formats.names import dotted
from morelora.formats.original import LAYOUTS, MARKS, Place, standard_names
from morelora.formats.vocabulary import layer_names
from morelora.site import NormSite, Site

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHUNK = 1 << 24
BARE = re.compile(r"(_embedding|text_projection)$")
"""What has no bias, and in OpenCLIP's names no leaf either."""
NORM = re.compile(r"norm\w*$")
Change = Callable[[str, Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]
"""Layer name, weight and bias in float32 -> what they become; None for what stays."""


@dataclass(frozen=True)
class Entry:
    """Where a parameter lies: the file, its key there, and which part of that tensor it is."""

    file: Path
    place: Place


class Checkpoint:
    """A base model. ``layers`` are its linear layers, convolutions and norms by dotted name."""

    def __init__(self, path: Path, entries: Mapping[str, Entry], family: str) -> None:
        self.path, self.entries, self.family = path, dict(entries), family
        files = {entry.file for entry in self.entries.values()}
        self.headers = {file: read_header(file) for file in sorted(files)}
        self._opened: dict[Path, Any] = {}
        self.layers = dict(self._sites())
        if not self.layers:
            raise FormatError(f"{path} holds no layer of a UNet or text encoder: is it a base model of SD 1.x, 2.x or XL?")

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read the headers. Raises ``FormatError`` where it is no base model that is known, or damaged."""
        path = Path(path)
        if path.is_dir():
            return cls(path, _folder_entries(path), _folder_family(path))
        family, entries = _file_entries(path)
        return cls(path, entries, family)

    def _sites(self) -> Iterator[tuple[str, Site]]:
        for key in self.entries:
            name, _, leaf = key.rpartition(".")
            if leaf != "weight" or name.endswith("_embedding"):
                continue
            shape, has_bias = self.shape(key), f"{name}.bias" in self.entries
            if len(shape) in (2, 4):
                kernel = (shape[2], shape[3]) if len(shape) == 4 else None
                yield name, Site(shape[0], shape[1], kernel, has_bias=has_bias)
            elif len(shape) == 1 and NORM.search(name):
                yield name, NormSite(shape[0], 1, has_bias=has_bias)

    @property
    def is_sdxl(self) -> bool:
        return self.family == "sdxl"

    def shape(self, key: str) -> tuple[int, ...]:
        """Of a parameter, ``<layer>.weight`` or ``<layer>.bias``."""
        entry = self.entries[key]
        whole = tuple(self.headers[entry.file][entry.place.key]["shape"])
        if entry.place.third is not None:
            whole = (whole[0] // 3, *whole[1:])
        return whole[::-1] if entry.place.is_transposed else whole

    def read(self, key: str) -> Tensor:
        """A parameter as it is stored."""
        entry = self.entries[key]
        if entry.file not in self._opened:
            self._opened[entry.file] = safe_open(entry.file, "pt")
        part = self._opened[entry.file].get_slice(entry.place.key)
        third, rows = entry.place.third, part.get_shape()[0]
        tensor = part[:] if third is None else part[third * rows // 3 : (third + 1) * rows // 3]
        return tensor.T if entry.place.is_transposed else tensor

    def weight(self, name: str) -> Tensor:
        """A layer's weight in float32."""
        return self.read(f"{name}.weight").float()

    def bias(self, name: str) -> Tensor | None:
        """A layer's bias in float32, if it has one."""
        return self.read(f"{name}.bias").float() if f"{name}.bias" in self.entries else None

    # writing

    def write(self, out: Path, change: Change, names: Iterable[str], metadata: Mapping[str, str]) -> float:
        """A copy with some layers changed; whole or not at all.

        Args:
            out: a file where this is one, a folder that does not exist where this is one.
            change: what the weights become.
            names: the layers that it is asked for.
            metadata: text entries to add.

        Returns:
            The largest ``||W' - stored|| / ||W' - W||`` over the layers: what the precision of the file costs.

        Raises:
            FormatError: a layer's precision is none of floating point.
            OSError: it cannot be written.
        """
        if self.path.is_dir():
            return self._write_folder(Path(out), change, list(names), metadata)
        lost = 0.0

        def fill(temporary: Path) -> None:
            nonlocal lost
            lost = self._write_copies({self.path: temporary}, change, names, metadata)

        atomic.write_file(Path(out), fill)
        return lost

    def _write_folder(self, out: Path, change: Change, names: list[str], metadata: Mapping[str, str]) -> float:
        temporary = out.with_name(f".tmp-{out.name}")
        try:
            shutil.copytree(self.path, temporary, ignore=lambda folder, found: self._own_files(Path(folder)))
            copies = {file: temporary / file.relative_to(self.path) for file in self.headers}
            lost = self._write_copies(copies, change, names, metadata)
            for file in copies.values():
                atomic.fsync(file)
            temporary.rename(out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        atomic.fsync(out.parent)
        return lost

    def _own_files(self, folder: Path) -> set[str]:
        """Files that are written and not copied, and weights in other forms, which would not be changed."""
        inside = folder.name in COMPONENTS and folder.parent == self.path
        others = {file.name for file in folder.glob("*.*") if file.suffix in (".safetensors", ".bin", ".msgpack", ".onnx")}
        return others if inside else set()

    def _write_copies(
        self, copies: Mapping[Path, Path], change: Change, names: Iterable[str], metadata: Mapping[str, str]
    ) -> float:
        starts = {file: _copy(file, copy, self.headers[file], metadata) for file, copy in copies.items()}
        streams: dict[Path, BinaryIO] = {file: copy.open("r+b") for file, copy in copies.items()}
        lost = 0.0
        try:
            for name in names:
                old = {"weight": self.weight(name), "bias": self.bias(name)}
                for leaf, new in zip(old, change(name, old["weight"], old["bias"]), strict=True):
                    before = old[leaf]
                    if new is not None and before is not None:
                        stored = self._put(f"{name}.{leaf}", new, streams, starts)
                        size = float((new - before).norm())
                        lost = max(lost, float((stored.float() - new).norm()) / size if size else 0.0)
        finally:
            for stream in streams.values():
                stream.close()
        return lost

    def _put(self, key: str, tensor: Tensor, streams: Mapping[Path, BinaryIO], starts: Mapping[Path, int]) -> Tensor:
        """Write over a parameter's bytes; returns what is stored."""
        entry = self.entries[key]
        told = self.headers[entry.file][entry.place.key]
        if told["dtype"] not in DTYPES:
            raise FormatError(f"{entry.file}: {entry.place.key} holds {told['dtype']}: only floating-point weights can change")
        stored = tensor.to(DTYPES[told["dtype"]])
        if not torch.isfinite(stored).all():
            raise FormatError(f"{key} would be NaN or too large for {told['dtype']}: merge with a smaller weight, or in float32")
        laid = (stored.T if entry.place.is_transposed else stored).contiguous()
        begin, end = told["data_offsets"]
        begin += (entry.place.third or 0) * (end - begin) // 3
        streams[entry.file].seek(starts[entry.file] + begin)
        streams[entry.file].write(laid.view(torch.uint8).numpy().tobytes())
        return stored


def _copy(source: Path, copy: Path, header: Mapping[str, Any], metadata: Mapping[str, str]) -> int:
    """The same tensors under a header with more text entries; returns where its data begins. Hashes of the old data go."""
    kept = {key: value for key, value in header.get("__metadata__", {}).items() if "hash" not in key}
    text = json.dumps({**header, "__metadata__": {**kept, **metadata}}, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as old, copy.open("wb") as new:
        start = 8 + struct.unpack("<Q", old.read(8))[0]
        old.seek(start)
        new.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(old, new, CHUNK)
    return 8 + len(text)


def _folder_entries(path: Path) -> dict[str, Entry]:
    """Every parameter of the components that adapters go into, ``<component>.<path>.<leaf>``."""
    entries = {}
    for component in COMPONENTS:
        found = sorted((path / component).glob("*.safetensors"))
        plain = [file for file in found if not re.search(r"\.(fp16|fp32|bf16|non_ema)\.", file.name)]
        for file in plain or found:
            for key in read_header(file).keys() - {"__metadata__"}:
                name, _, leaf = key.rpartition(".")
                entries[f"{dotted(f'{component}.{name}')}.{leaf}"] = Entry(file, Place(key))
    if not entries:
        raise FormatError(
            f"{path} has no unet/*.safetensors: give the folder that holds unet/ and text_encoder/, or a .safetensors file"
        )
    return entries


def _folder_family(path: Path) -> str:
    if (path / "text_encoder_2").is_dir():
        return "sdxl"
    try:
        config = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    if config.get("addition_embed_type") == "text_time":
        return "sdxl"
    return "sd2" if config.get("use_linear_projection") else "sd1"


def _file_entries(path: Path) -> tuple[str, dict[str, Entry]]:
    """The family of a single file, and its parameters under our names."""
    header = read_header(path)
    renamed = standard_names(key for key in header if key != "__metadata__")
    keys = {renamed.get(key, key): key for key in header if key != "__metadata__"}
    family = next((family for family, mark in MARKS.items() if any(key.startswith(mark) for key in keys)), None)
    if family is None:
        few = ", ".join(sorted(keys)[:3])
        raise FormatError(f"{path} is no whole SD 1.x, 2.x or XL checkpoint ({len(keys)} tensors, such as {few})")
    entries = {}
    for component, layout in LAYOUTS[family].items():
        if component in COMPONENTS:
            for key, place in layout(_present(component, layout, keys)).items():
                if place.key in keys:
                    own = Place(keys[place.key], place.third, place.is_transposed)
                    entries[f"{component}.{key}"] = Entry(path, own)
    return family, entries


def _present(component: str, layout: Callable[[Iterable[str]], dict[str, Place]], keys: Mapping[str, str]) -> list[str]:
    """Parameters that the file may have. An upsampler's place depends on whether its block has attention, so these come last."""
    prefix = f"{component}."
    paths = [name.removeprefix(prefix) for name in layer_names() if name.startswith(prefix)]
    every = [f"{path}.{leaf}" for path in paths for leaf in ("weight", *(() if BARE.search(path) else ("bias",)))]
    places = {key: place for key, place in layout(every).items() if place.key in keys and ".upsamplers." not in key}
    return [*places, *(key for key in every if ".upsamplers." in key and any(_block(key) == _block(other) for other in places))]


def _block(key: str) -> str:
    return ".".join(key.split(".")[:2])
