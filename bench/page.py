"""How fast the browser's page answers, and how large its server is, beside a run of 5,000 steps and 500 samples.

    python -m bench.page            print a table; the exit code is 1 where a figure is beyond its limit
    python -m bench.page --write    and put it into docs/benchmarks.md

The app is started as users start it, over a folder of runs that is made here, and asked over HTTP as a browser asks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from bench.report import machine, write_part
from tests.app.serving import Server
from trainer import presets
from trainer.events import Event, Preview, Saved, Started, Step
from trainer.run import RunDir

STEPS, PROMPTS, PREVIEWS = 5000, 4, 125
OTHERS = 20
"""Further runs of 500 steps."""
CALLS = 20
FIRST_SECONDS, POLL_SECONDS, RESIDENT_MIB = 3.0, 0.2, 600


@dataclass(frozen=True)
class Figure:
    """A measured value and what it may be at most; None where nothing was set."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def is_over(self) -> bool:
        return self.limit is not None and self.value > self.limit

    def row(self) -> str:
        limit = "" if self.limit is None else f"{self.limit:g} {self.unit}"
        return f"| {self.what} | {self.value:.3g} {self.unit} | {limit} |"


def make_run(folder: Path, steps: int, previews: int) -> RunDir:
    """A run folder as a finished training leaves it, with flat pictures."""
    run = RunDir(folder)
    run.previews.mkdir(parents=True)
    run.config_file.write_text(presets.read_text(presets.FOLDER / "pocket-lora.toml"), encoding="utf-8")
    prompts = [f"a prompt, number {number}" for number in range(PROMPTS)]
    part = {"component": "unet", "algorithm": "lora", "layers": 32, "parameters": 10_000}
    events: list[Event] = [Started({"steps": steps, "trained": [part], "pictures": 12, "dropped": 0, "device": "cpu"}, 0)]
    due = {round(number * steps / max(previews - 1, 1)) for number in range(previews)}
    for step in range(steps + 1):
        if step:
            events.append(Step(step, 0.1 + 1 / step, 1e-3, 1.0, 2.0, [1e-3]))
        if step in due:
            files = [run.preview_file(step, number) for number in range(PROMPTS)]
            for number, file in enumerate(files):
                Image.new("RGB", (64, 64), (step % 256, 40 * number, 90)).save(file)
            events.append(Preview(step, [run.relative(file) for file in files], prompts))
            events.append(Saved(step, "checkpoint", f"checkpoints/step-{step:06d}"))
    run.events_file.write_text("".join(f"{event.to_json()}\n" for event in events), encoding="utf-8")
    return run


def timed(ask: Callable[[], Any]) -> list[float]:
    """Seconds of each of ``CALLS`` calls."""
    found = []
    for _ in range(CALLS):
        since = time.perf_counter()
        ask()
        found.append(time.perf_counter() - since)
    return found


def name_of(server: Server, page: str, event: str) -> str:
    """A page's function by the end of its name."""
    return next(name for name in server.functions if name.startswith(f"{page}/") and name.endswith(event))


def polls(server: Server, page: str, given: list[Any]) -> list[Figure]:
    """What a page asks at each beat of its timer, as a tab that is open asks it."""
    session, beat = uuid.uuid4().hex, name_of(server, page, "timer.tick")
    server.call(f"{page}/load", *given[: len(server.functions[f"{page}/load"]["inputs"])], session=session)
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    found = timed(lambda: server.values(beat, *given, session=session))
    worked = (sum(process.cpu_times()[:2]) - before) / CALLS
    what = f"poll of the page {page.capitalize()}"
    return [
        Figure(f"{what}, the server's CPU time", 1000 * worked, "ms"),
        Figure(f"{what}, median", 1000 * statistics.median(found), "ms", 1000 * POLL_SECONDS),
        Figure(f"{what}, slowest of {CALLS}", 1000 * max(found), "ms"),
    ]


def measure(folder: Path) -> list[Figure]:
    """All figures, over ``folder/runs``."""
    make_run(folder / "runs" / "long", STEPS, PREVIEWS)
    for number in range(OTHERS):
        make_run(folder / "runs" / f"short-{number}", 500, 3)
    (folder / "runs" / "long" / "config.toml").touch()
    since = time.perf_counter()
    server = Server(folder)
    try:
        up = time.perf_counter() - since
        since = time.perf_counter()
        server.client.get("/").raise_for_status()
        page = time.perf_counter() - since
        server.markup(name_of(server, "home", "load-1"))
        filled = time.perf_counter() - since
        figures = [
            Figure("from the start of the command to the address", up, "s"),
            Figure("first page, from then on", page, "s", FIRST_SECONDS),
            Figure("first page with its latest runs", filled, "s", FIRST_SECONDS),
            *polls(server, "train", ["long", []]),
            *polls(server, "runs", ["", None]),
        ]
        samples = timed(lambda: server.values("samples/load"))
        process = psutil.Process(server.process.pid)
        assert not [each.path for each in process.memory_maps() if "/torch/" in each.path], "the server holds torch"
        return [
            *figures,
            Figure("the page Samples, all 500, median", 1000 * statistics.median(samples), "ms"),
            Figure("server, resident, without torch", process.memory_info().rss / 2**20, "MiB", RESIDENT_MIB),
        ]
    finally:
        server.stop()


def text(figures: list[Figure]) -> str:
    """The table with what it was measured on."""
    head = machine()
    where = f"`python -m bench.page`, {head['date']}, {head['cpu']}, {psutil.cpu_count()} cores, Python {head['python']}."
    rows = "\n".join(figure.row() for figure in figures)
    return f"{where}\n\n| what | measured | at most |\n|---|---|---|\n{rows}\n"


def main() -> int:
    """Measure, print, and write where asked; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    print(text(figures))
    if options.write:
        write_part("bench.page", text(figures))
    return int(any(figure.is_over for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
