"""Files that the tools make: a folder beside the runs, and the process that makes them. A name from a page never leaves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.desk import Refused
from app.text import say
from trainer.run import free, slug

FILES = "files"
"""Folder beside the runs."""
SMALL = 64 * 2**20
"""Bytes up to which a file is looked into at once: a larger one would keep other answers waiting."""
Ask = Callable[..., Any]

Values = dict[str, Any]


class Files:
    """What the pages ask of ``trainer.file_tools``. Every method raises ``Refused`` with the reason.

    ``ask`` is answered by a process that is there, ``apart`` by one that ends with the answer.
    """

    def __init__(self, folder: Path, ask: Ask, apart: Ask) -> None:
        self.folder, self._ask, self._apart = folder, ask, apart

    def examine(self, file: str) -> Values:
        """See ``trainer.file_tools.examine``."""
        return (self._ask if Path(file).stat().st_size <= SMALL else self._apart)("examine", file)

    def checksums(self, file: str) -> dict[str, str]:
        """See ``trainer.file_tools.checksums``."""
        return self._ask("checksums", file)

    def adapters(self) -> dict[str, Path]:
        """The adapter files of the folder by name, the newest first."""
        found = [file for file in self.folder.glob("*.safetensors") if file.is_file() and not file.is_symlink()]
        return {file.name: file for file in sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)}

    def take(self, file: str) -> Path:
        """Keep an adapter file that was dropped; returns where."""
        self._ask("check_adapter", file)
        self.folder.mkdir(parents=True, exist_ok=True)
        place = free(self.folder / f"{slug(Path(file).stem)}.safetensors")
        copied = place.with_name(f".{place.name}.part")
        shutil.copyfile(file, copied)
        return copied.replace(place)

    def publish(self, file: str, card: Values) -> Values:
        """A copy for others; see ``trainer.publish.Card``."""
        return self._ask("publish", file, self._place(card["name"], "")["folder"], card)

    def convert(self, file: str | None, name: str, base: str, form: str, dtype: str) -> Values:
        """The same change in another form."""
        return self._apart("convert_file", given(file), self._place(name, base) | {"form": form, "dtype": dtype})

    def merge(self, files: list[str], weights: str, name: str, base: str, rank: float | None) -> Values:
        """One file of several; ``weights`` are numbers with commas between, the others are 1."""
        pairs = list(zip(files, numbers(weights, len(files)), strict=True))
        if len(pairs) < 2:
            raise Refused(say("inspect.need_two"))
        return self._apart("merge_files", pairs, self._place(name, base), whole(rank) if rank else None)

    def resize(self, file: str | None, name: str, base: str, rank: float | None) -> Values:
        """The nearest LoRA of another rank."""
        return self._apart("resize_file", given(file), self._place(name, base), {"rank": whole(rank)})

    def extract(self, model: str, tuned: str, name: str, rank: float | None) -> Values:
        """The difference of two base models of this machine."""
        return self._apart("extract_file", there(model), there(tuned), self._place(name, ""), whole(rank))

    def _place(self, name: str, base: str) -> Values:
        if not name.strip():
            raise Refused(say("inspect.need_name"))
        return {"folder": str(self.folder), "name": name, "base": there(base) if base.strip() else ""}


def given(file: str | None) -> str:
    """A file that was dropped."""
    if not file:
        raise Refused(say("inspect.need_file"))
    return file


def there(path: str) -> str:
    """A path of this machine where something is."""
    text = path.strip()
    try:
        exists = bool(text) and Path(text).exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise Refused(say("inspect.not_there", path=text or "–"))
    return text


def whole(rank: float | None) -> int:
    """A rank from a field for numbers."""
    if rank is None or not 1 <= rank <= 4096 or rank != int(rank):
        raise Refused(say("inspect.need_rank"))
    return int(rank)


def numbers(text: str, count: int) -> list[float]:
    """``0.8, 1`` as ``count`` numbers; what is left out is 1."""
    try:
        found = [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        found = [float("nan")]
    if len(found) > count or not all(-1000 < number < 1000 for number in found):
        raise Refused(say("inspect.need_weights", count=count))
    return found + [1.0] * (count - len(found))
