"""Small JSON files of the server's own: whole or absent, and one writer at a time, also of several servers on one folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainer.errors import DiskError

WAIT = 10.0
"""Seconds that a writer waits for another one."""


class Store:
    """One JSON object in a file. What cannot be read counts as empty: it is put aside, not lost."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = FileLock(file.with_suffix(".lock"), timeout=WAIT)

    def read(self) -> dict[str, Any]:
        """What is in the file; empty where there is none."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.file.replace(self.file.with_suffix(".broken"))
        return {}

    @contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """The object to be changed in place; written when the block ends without an error."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            values = self.read()
            yield values
            write_text(self.file, json.dumps(values, ensure_ascii=False, indent=1))


def write_text(file: Path, text: str) -> None:
    """Write a file so that it is the old one or the whole new one at any moment. Raises ``DiskError``."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, text)
    except OSError as error:
        raise DiskError.of(error, file) from error


def _write(file: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
