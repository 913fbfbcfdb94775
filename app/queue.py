"""What is to be trained, in order, one after the other; kept in a file, so that it goes on after a restart of the server.

Runs started elsewhere count too: while one holds its folder, nothing is started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app import children, errors
from app.children import Child
from app.store import Store, write_text
from trainer.presets import read_text
from trainer.run import RunDir, slug

SECONDS = 1.0
"""Between two looks at whether the next one can start."""
RETRY_SECONDS = 30.0
"""Until the next look after one that went wrong."""
LAST_WORDS = 4000
"""Characters of a child's log that are shown."""


@dataclass(frozen=True)
class Job:
    """A run that waits, goes on, or ended. ``resume`` goes on in the run's own folder."""

    name: str
    resume: bool = False
    pid: int = 0
    born: float = 0.0

    @property
    def waits(self) -> bool:
        return self.pid == 0

    def lives(self) -> bool:
        """Whether its process goes on."""
        return not self.waits and Child(self.pid, self.born).lives()

    @property
    def has_ended(self) -> bool:
        return not self.waits and not self.lives()


class Queue:
    """Jobs in ``state/queue.json``, their recipes in ``state/recipes``, words in ``state/logs``; their runs are in ``output``."""

    def __init__(self, output: Path, state: Path, start: Callable[[list[str], Path], Child] = children.start) -> None:
        self.output, self.state = output, state
        self._store = Store(state / "queue.json")
        self._start = start
        self.problem = ""
        """Why the last look could start nothing, for the user; '' where all is well."""
        self._ended = threading.Event()

    # what is there

    def jobs(self) -> list[Job]:
        """All jobs in their order."""
        return _jobs(self._store.read())

    def waiting(self) -> list[Job]:
        """Those that have not begun."""
        return [job for job in self.jobs() if job.waits]

    @property
    def is_paused(self) -> bool:
        return bool(self._store.read().get("paused"))

    def is_busy(self) -> bool:
        """Whether some run goes on, also one that was started elsewhere."""
        return any(job.lives() for job in self.jobs()) or any(run.is_held() for run in self._runs())

    def job(self, name: str | None) -> Job | None:
        """A job by its name."""
        return next((job for job in self.jobs() if job.name == name), None)

    def is_emptied(self, name: str) -> bool:
        """Whether a job's folder is there without a run in it, as when its files are deleted while it trains."""
        return (self.output / name).is_dir() and not self._is_run(name)

    def last_words(self, name: str) -> str:
        """The end of what a job's process printed; '' while it goes on, and where there is none."""
        job = self.job(name)
        return children.last_words(self.log_of(name), LAST_WORDS) if job and job.has_ended else ""

    def log_of(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    # what can be done

    def add(self, toml: str, name: str) -> str:
        """Put a recipe at the end; returns the run's name, another one where ``name`` is taken. Raises ``InputError``."""
        stem = slug(name)
        with self._store.change() as kept:
            free = self._free(stem, _jobs(kept))
            write_text(self._recipe(free), toml)
            _keep(kept, [*_jobs(kept), Job(free)])
        return free

    def resume(self, name: str) -> None:
        """Put a run that was cut off or stopped at the end again; a job without a run begins anew, under a name that is free."""
        is_run = self._is_run(name)
        with self._store.change() as kept:
            jobs = _jobs(kept)
            known = is_run or any(job.name == name for job in jobs)
            if known and not any(job.name == name and (job.waits or job.lives()) for job in jobs):
                others = [job for job in jobs if job.name != name]
                new = name if is_run else self._free(name, others)
                if new != name:
                    write_text(self._recipe(new), read_text(self._recipe(name)))
                _keep(kept, [*others, Job(new, resume=is_run)])

    def remove(self, name: str) -> None:
        """Take a job out that does not go on."""
        self._edit(lambda jobs: [job for job in jobs if job.name != name or job.lives()])

    def move(self, name: str, by: int) -> None:
        """A waiting job ``by`` places later, or earlier where negative."""

        def moved(jobs: list[Job]) -> list[Job]:
            begun, waiting = [job for job in jobs if not job.waits], [job for job in jobs if job.waits]
            place = next((i for i, job in enumerate(waiting) if job.name == name), None)
            if place is not None:
                waiting.insert(max(0, place + by), waiting.pop(place))
            return begun + waiting

        self._edit(moved)

    def pause(self, paused: bool) -> None:
        """Start nothing more; what goes on goes on."""
        with self._store.change() as kept:
            kept["paused"] = paused

    def request_stop(self, name: str) -> None:
        """Ask a run to finish its step, save, export and end."""
        if self._is_run(name):
            RunDir(self.output / name).stop_file.touch()

    # what it does by itself

    def tick(self) -> None:
        """Start the next job where nothing runs. One that cannot be written down is ended: it would be started again."""
        if self.is_paused or not self.waiting() or self.is_busy():
            return
        child: Child | None = None
        try:
            with self._store.change() as kept:
                jobs = _jobs(kept)
                place = next((i for i, job in enumerate(jobs) if job.waits), None)
                if place is None or any(job.lives() for job in jobs):
                    return
                job = jobs[place]
                child = self._start(self._words(job), self.log_of(job.name))
                jobs[place] = replace(job, pid=child.pid, born=child.born)
                _keep(kept, jobs)
        except BaseException:
            if child is not None:
                child.kill()
            raise

    def look(self) -> float:
        """``tick``, and the seconds until the next one; what went wrong is kept as ``problem``."""
        try:
            self.tick()
        except Exception as error:
            self.problem = errors.words(error)
            return RETRY_SECONDS
        self.problem = ""
        return SECONDS

    def run_forever(self) -> None:
        """Look every moment until ``close``; in a thread of its own."""
        wait = SECONDS
        while not self._ended.wait(wait):
            wait = self.look()

    def close(self) -> None:
        """Look no more. Runs go on."""
        self._ended.set()

    def _words(self, job: Job) -> list[str]:
        if job.resume:
            return ["--resume", str(self.output / job.name)]
        return ["--preset", str(self._recipe(job.name)), "--name", job.name, "--output", str(self.output)]

    def _free(self, stem: str, jobs: list[Job]) -> str:
        """A run's name that neither a job nor a folder has."""
        taken = {job.name for job in jobs}
        number, free = 1, stem
        while free in taken or (self.output / free).exists():
            number, free = number + 1, f"{stem}-{number + 1}"
        return free

    def _recipe(self, name: str) -> Path:
        return self.state / "recipes" / f"{name}.toml"

    def _runs(self) -> list[RunDir]:
        runs = [RunDir(path) for path in self.output.glob("*")]
        return [run for run in runs if run.config_file.is_file()]

    def _is_run(self, name: str) -> bool:
        return any(run.path.name == name for run in self._runs())

    def _edit(self, change: Callable[[list[Job]], list[Job]]) -> None:
        with self._store.change() as kept:
            _keep(kept, change(_jobs(kept)))


def _jobs(kept: dict[str, Any]) -> list[Job]:
    return [Job(**job) for job in kept.get("jobs", [])]


def _keep(kept: dict[str, Any], jobs: list[Job]) -> None:
    kept["jobs"] = [asdict(job) for job in jobs]
