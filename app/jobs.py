"""Runs started from the browser: child processes in sessions of their own, so that they outlive the page and the server."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from trainer.presets import ROOT, list_presets
from trainer.run import RunDir


@dataclass(frozen=True)
class Job:
    """A child process, the folder that its run makes, and the file that its words go to."""

    run: RunDir
    process: subprocess.Popen[bytes]
    log: Path


class Jobs:
    """Starts runs in ``output``; what the children print is kept in ``logs``."""

    def __init__(self, output: Path, logs: Path) -> None:
        self.output, self.logs = output, logs
        self.started: dict[str, Job] = {}

    def start(self, preset: str) -> str:
        """Start a shipped preset; returns the name of its run. Raises ``ValueError`` for an unknown preset."""
        if preset not in [shipped.name for shipped in list_presets()]:
            raise ValueError(f"there is no preset {preset!r}")
        name = f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
        command = [sys.executable, "-m", "trainer", "--preset", preset, "--name", name, "--output", str(self.output)]
        log = self.logs / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        self.started[name] = Job(RunDir(self.output / name), process, log)
        return name

    def is_busy(self) -> bool:
        """Whether some run goes on, also one that was started elsewhere."""
        alive = any(job.process.poll() is None for job in self.started.values())
        return alive or any(RunDir(self.output / name).is_held() for name in self.names())

    def names(self) -> list[str]:
        """All runs in the output folder and those just being started, the newest first."""
        folders = [path for path in self.output.glob("*") if RunDir(path).config_file.is_file()]
        names = [path.name for path in sorted(folders, key=lambda path: path.stat().st_ctime, reverse=True)]
        starting = [name for name in reversed(self.started) if name not in names]
        return starting + names

    def run(self, name: str | None) -> RunDir | None:
        """A run by its name; None where it is not among ``names``, so that no other folder can be asked for."""
        return RunDir(self.output / name) if name in self.names() else None

    def last_words(self, name: str) -> str:
        """What a child said that ended before it had a run folder; empty while it goes on or where all is well."""
        job = self.started.get(name)
        if job is None or job.process.poll() in (None, 0) or job.run.config_file.is_file():
            return ""
        return job.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def request_stop(self, name: str | None) -> None:
        """Ask a run to finish its step, save and end."""
        run = self.run(name)
        if run is not None and run.path.is_dir():
            run.stop_file.touch()
