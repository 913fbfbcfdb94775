"""The run folder: the only file that knows the names inside it. The trainer writes, everyone else reads.

``config.toml  pictures.jsonl  findings.json  events.jsonl  train.log  stop  sample  save  run.lock  cache/  checkpoints/
previews/  strengths/  tensorboard/  before_after.png  verify.json  NAME.safetensors  NAME-000400.safetensors
NAME-embedding.safetensors``
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trainer.errors import InputError, LockedError
from trainer.events import Event

REQUESTS = ("sample", "save")
"""What a run can be asked for while it trains: pictures, or a checkpoint and a file for users."""
EMBEDDING = "-embedding"
"""End of the name of a word's own file."""

PATIENCE = 1.0
"""Seconds to wait for a held folder: a page that asks ``is_held`` holds it for an instant itself."""

LONGEST_NAME = 180
"""Bytes of a run's name: a file system takes 255, and files of a run append to it."""


def slug(name: str) -> str:
    """A name that is safe as a file name on every system; raises ``InputError`` where nothing is left."""
    text = unicodedata.normalize("NFC", name)
    text = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "-", text).strip(" .-")[:100]
    text = text.encode(errors="ignore")[:LONGEST_NAME].decode(errors="ignore").strip(" .-")
    if not text:
        raise InputError(f"run.name = {name!r} has no character that a file name can have", "give a name such as my-style")
    return text


def free(path: Path) -> Path:
    """The file itself, or ``NAME-2``, ``NAME-3`` … where that is there."""
    number, found = 2, path
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found


class RunDir:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
        self.events_file = path / "events.jsonl"
        self.log_file = path / "train.log"
        self.stop_file = path / "stop"
        self.pictures_file = path / "pictures.jsonl"
        self.cache = path / "cache"
        self.looks_file = self.cache / "looks.json"
        self.checkpoints = path / "checkpoints"
        self.previews = path / "previews"
        self.strengths = path / "strengths"
        self.drawn_file = self.strengths / "drawn.json"
        self.tensorboard = path / "tensorboard"
        self.before_after = path / "before_after.png"
        self.verify_file = path / "verify.json"
        self.findings_file = path / "findings.json"

    @cached_property
    def _lock(self) -> FileLock:
        return FileLock(self.path / "run.lock")

    @classmethod
    def create(cls, output: Path, name: str) -> RunDir:
        """A new folder ``output/name``, or ``name-2``, ``name-3`` … where that exists: nothing is overwritten."""
        stem = slug(name)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"run.output = {str(output)!r} cannot be made: {error.strerror}", "choose another folder") from error
        number = 1
        while True:
            path = output / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
                return cls(path)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise InputError(f"{path} cannot be made: {error.strerror}", "choose another run.output") from error

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run. Raises ``InputError`` where there is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise InputError(f"{path} is no run folder: it has no config.toml", "give the folder of a run, such as runs/my-style")
        return run

    def lock(self) -> None:
        """Hold the folder until the process ends. Raises ``LockedError`` if another one holds it."""
        try:
            self._lock.acquire(timeout=PATIENCE, poll_interval=0.02)
        except Timeout as error:
            raise LockedError(
                f"another process is working in {self.path}", "wait for it, stop it, or start under another run.name"
            ) from error

    def is_held(self) -> bool:
        """Whether some process holds the folder now."""
        if not Path(self._lock.lock_file).exists():
            return False
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def unlock(self) -> None:
        self._lock.release()

    def export_file(self, name: str, step: int | None = None) -> Path:
        """``NAME.safetensors``, or ``NAME-000400.safetensors`` for a step."""
        return self.path / f"{slug(name)}{'' if step is None else f'-{step:06d}'}.safetensors"

    def embedding_file(self, name: str, step: int | None = None) -> Path:
        """``NAME-embedding.safetensors``, or ``NAME-000400-embedding.safetensors`` for a step."""
        adapter = self.export_file(name, step)
        return adapter.with_name(f"{adapter.stem}{EMBEDDING}.safetensors")

    def numbered_exports(self, name: str) -> list[list[Path]]:
        """The files of single steps, an adapter's and an embedding's together, newest step first."""
        pattern = re.compile(rf"{re.escape(slug(name))}-(\d{{6,}})({EMBEDDING})?\.safetensors")
        found: dict[int, list[Path]] = {}
        for file in self.path.iterdir():
            if match := pattern.fullmatch(file.name):
                found.setdefault(int(match[1]), []).append(file)
        return [found[step] for step in sorted(found, reverse=True)]

    def preview_file(self, step: int, index: int) -> Path:
        return self.previews / f"{step:06d}-{index:02d}.png"

    def strength_file(self, strength: float, index: int) -> Path:
        """A picture of the finished file at a strength."""
        return self.strengths / f"{strength:.2f}-{index:02d}.png"

    def drawn_of(self, file: Path) -> dict[str, Any]:
        """What ``drawn.json`` says of the file that the pictures at strengths were drawn with."""
        found = file.stat()
        return {"file": self.relative(file), "size": found.st_size, "written": found.st_mtime_ns}

    def is_drawn_of_present_file(self) -> bool:
        """Whether the pictures at strengths show the file as it is now: a resumed run writes another one."""
        try:
            kept = json.loads(self.drawn_file.read_text(encoding="utf-8"))
            return bool(kept == self.drawn_of(self.path / str(kept["file"])))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def relative(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def emit(self, event: Event) -> None:
        """Append one line to ``events.jsonl``, whole or not at all: a half one would swallow the next."""
        line = f"{event.to_json()}\n".encode()
        with self.events_file.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[stream.write(line) :]
            except OSError:
                stream.truncate(before)
                raise

    def events(self) -> list[dict[str, Any]]:
        """All whole lines written so far; a line torn by a crash is left out."""
        if not self.events_file.is_file():
            return []
        found = []
        for line in self.events_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def rewind_events(self, step: int) -> None:
        """Drop events after ``step``, which a resumed run will make again."""
        from morelora import atomic  # here, so that the browser's process reads run folders without torch

        kept = [event for event in self.events() if event.get("step", 0) <= step]
        atomic.write_text(self.events_file, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept))

    def request(self, what: str) -> None:
        """Ask the run, by a file, for something of ``REQUESTS`` after its present step."""
        (self.path / what).touch()

    def requests(self) -> set[str]:
        """What is asked for now."""
        return {what for what in REQUESTS if (self.path / what).exists()}

    def clear_requests(self, done: set[str]) -> None:
        """Forget what was done."""
        for what in done:
            (self.path / what).unlink(missing_ok=True)

    def stop_requested(self) -> bool:
        return self.stop_file.exists()

    def clear_stop(self) -> None:
        self.stop_file.unlink(missing_ok=True)
