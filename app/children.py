"""Runs as child processes: in sessions of their own, so that they outlive page and server, from argument lists."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from trainer.presets import ROOT


@dataclass(frozen=True)
class Child:
    """A process, known by its number and the time that it was born: numbers are given again."""

    pid: int
    born: float

    def lives(self) -> bool:
        """Whether it goes on."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.born and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.lives():
                psutil.Process(self.pid).kill()


def last_words(log: Path, most: int) -> str:
    """The end of what a child printed; '' where it is not there."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-most:].strip()
    except OSError:
        return ""


_KEPT: list[subprocess.Popen[bytes]] = []
"""Children of this server, so that ended ones can be collected."""


def start(words: list[str], log: Path) -> Child:
    """Start ``python -m trainer WORDS``; what it prints goes into ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *words],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    _KEPT[:] = [child for child in _KEPT if child.poll() is None] + [process]
    try:
        return Child(process.pid, psutil.Process(process.pid).create_time())
    except psutil.NoSuchProcess:
        return Child(process.pid, 0.0)
