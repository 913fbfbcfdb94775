"""What the browser does with adapter files: looks into one, and makes others of them in a folder that it names.

Plain values in, plain values out, as ``trainer.answers`` has them. A message names files without their folders: an upload's
are the server's own. A new file never takes the place of another one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morelora.errors import FormatError, MoreLoraError
from morelora.files.checkpoint import Checkpoint
from morelora.files.convert import convert
from morelora.files.extract import Extraction, extract
from morelora.files.inspect import inspect
from morelora.files.merge import merge
from morelora.files.opened import open_adapter
from morelora.files.resize import resize
from morelora.files.writing import DTYPES, Output, Report
from morelora.formats import FORMS
from morelora.formats.container import data_hash
from morelora.lowrank import Cut
from trainer import settings
from trainer.config.output import WEB_UIS
from trainer.errors import DiskError, InputError
from trainer.metadata import read_recipe
from trainer.run import free, slug

ENDING = ".safetensors"
MOST_VALUES = 128
"""Singular values that are told of a layer."""
SVD_RANK = 32
"""Of the approximate form where no rank is asked for."""
CHOSEN_FORMS = ("auto", *FORMS, "svd")

Values = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a new file goes and how: values as the browser has them."""

    folder: str
    name: str
    form: str = "webui"
    dtype: str = ""
    """``fp32``, ``fp16`` or ``bf16``; '' for that of the file it is made of."""
    base: str = ""
    """A base model's folder or file, where its weights are needed."""

    def output(self, like: Any = None, cut: Cut | None = None) -> Output:
        """As the tools take it. Raises ``InputError``."""
        if self.form not in CHOSEN_FORMS:
            raise InputError(f"there is no form {self.form!r}", f"choose from {', '.join(CHOSEN_FORMS)}")
        if self.dtype and self.dtype not in DTYPES:
            raise InputError(f"there is no precision {self.dtype!r}", f"choose from {', '.join(DTYPES)}")
        dtype = DTYPES[self.dtype] if self.dtype else like.dtype if like else DTYPES["fp16"]
        return Output(new_file(self.folder, self.name), self.form, dtype, WEB_UIS, cut)

    def model(self) -> Checkpoint | None:
        """The base, where one is named."""
        return Checkpoint.open(Path(self.base)) if self.base else None


def new_file(folder: str, name: str) -> Path:
    """``FOLDER/NAME.safetensors`` with a safe name that is not taken. Raises ``InputError``, ``DiskError``."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError.of(error, folder) from error
    return free(Path(folder) / f"{slug(name.removesuffix(ENDING))}{ENDING}")


@contextmanager
def named(*files: str) -> Iterator[None]:
    """Errors that are meant for the user, with these files by their names alone."""
    try:
        yield
    except (MoreLoraError, OSError) as error:
        text = str(error)
        for file in sorted(filter(None, files), key=len, reverse=True):
            text = text.replace(file, Path(file).name)
        raise InputError(text) from error


# questions


def examine(file: str) -> Values:
    """What ``morelora.files.inspect`` finds, with ``checksums``, the rank to ``keep``, and the recipe as ``toml``.

    ``toml`` is '' and ``no_recipe`` says why where the file holds none that this version can read.
    """
    with named(file):
        found = inspect(Path(file), top=MOST_VALUES)
        if not found["layers"]:
            what = f"{file} holds no layer of an adapter for Stable Diffusion 1.x, 2.x or XL"
            raise FormatError(f"{what}: {found['unread'][0]} is none")
        toml, why = _recipe(Path(file))
        ranks = [layer["rank_of_energy"] for layer in found["layers"] if "rank_of_energy" in layer]
        name = Path(file).name
        return found | {
            "file": name, "checksums": checksums(file), "keep": max(ranks, default=None), "toml": toml, "no_recipe": why
        }  # fmt: skip


def _recipe(file: Path) -> tuple[str, str]:
    try:
        return settings.to_toml(read_recipe(file), whole=False), ""
    except InputError as error:
        return "", str(error).replace(str(file), file.name)


def checksums(file: str) -> dict[str, str]:
    """``sha256`` of the file, ``autov2`` (10 digits of it, for model sites), ``autov3`` (12 of its data's, as A1111 has)."""
    with named(file), Path(file).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"sha256": digest, "autov2": digest[:10].upper(), "autov3": data_hash(Path(file))[:12]}


def convert_file(file: str, place: Values) -> Values:
    """The same change in another form."""
    wanted = Place(**place)
    with named(file, wanted.base):
        base = wanted.model()
        opened = open_adapter(Path(file), base)
        return told(convert(opened, wanted.output(opened, Cut(SVD_RANK)), base))


def merge_files(files: Sequence[tuple[str, float]], place: Values, rank: int | None) -> Values:
    """One file of several with their weights; exact without a ``rank``."""
    wanted = Place(**place)
    weights = [weight for _, weight in files]
    if len(files) < 2 or not all(map(math.isfinite, weights)):
        raise InputError("a merge takes two files or more, and a finite weight of each")
    with named(*(file for file, _ in files), wanted.base):
        base = wanted.model()
        opened = [(open_adapter(Path(file), base), weight) for file, weight in files]
        return told(merge(opened, wanted.output(opened[0][0]), Cut(rank) if rank else None, base))


def resize_file(file: str, place: Values, cut: Mapping[str, float]) -> Values:
    """The nearest LoRA of another ``rank``, or of the rank that ``energy`` asks for."""
    wanted = Place(**place)
    with named(file, wanted.base):
        base = wanted.model()
        opened = open_adapter(Path(file), base)
        return told(resize(opened, wanted.output(opened), Cut(**cut), base))


def extract_file(model: str, tuned: str, place: Values, rank: int) -> Values:
    """The difference of two base models, folders or files of this machine, as a LoRA."""
    with named(model, tuned):
        base, other = Checkpoint.open(Path(model)), Checkpoint.open(Path(tuned))
        return told(extract(base, other, Place(**place).output(), Extraction(Cut(rank))))


def told(report: Report) -> Values:
    """A tool's report: the new ``file`` and ``lines`` about it."""
    return {"file": str(report.path), "lines": [line.replace(str(report.path), report.path.name) for line in report.lines()]}


TOOLS = (examine, checksums, convert_file, merge_files, resize_file, extract_file)
