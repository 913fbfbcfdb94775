"""How well every algorithm learns a style from 12 pictures, on concepts that were not among them.

    python -m bench.style --quick                  every pocket preset, every shipped style, three seeds: hours of CPU
    python -m bench.style --quick --jobs 2         two trials beside each other, one thread each
    python -m bench.style --quick --styles ink --presets pocket-lora --seeds 1
    python -m bench.style --report                 the table and plot of what has been measured, into docs/

Each trial trains a preset, loads the exported file by ``morelora.load``, and judges samples of the held-out concepts at fixed
seeds. Results are kept after each trial; those that are there are not made again, unless their preset has changed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.style.held import QUICK, ROOT, STYLES, held_out
from bench.style.sheet import draw_sheet
from bench.style.store import Store
from bench.style.table import line, write_report
from bench.style.trial import Result, Trial, bounds, run_trial, tools
from trainer import presets

OUT = ROOT / "bench" / "results" / "style.json"
SEEDS = (1, 2, 3)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, print a line for each trial, keep it all."""
    options = parse(argv)
    store = Store(options.out)
    if not options.report:
        run(options, store)
    if options.report or options.out == OUT:
        write_report(store.results)


def parse(argv: list[str] | None) -> argparse.Namespace:
    every = [preset.name for preset in presets.list_presets() if preset.is_example]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} held-out concepts for each style instead of all")
    parser.add_argument("--styles", nargs="+", default=sorted(path.name for path in STYLES.iterdir() if path.is_dir()))
    parser.add_argument("--presets", nargs="+", default=every)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of the training; samples have fixed ones")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ from the presets'")
    parser.add_argument("--jobs", type=int, default=1, help="trials beside each other")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--sheets", type=Path, help="folder for a picture sheet of each style, of the trials that are run")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args(argv)
    if options.set and options.out == OUT:
        parser.error("--set changes what the presets are: give --out, a file for these results")
    return options


def run(options: argparse.Namespace, store: Store) -> None:
    """Seed by seed, so that a cut run has every preset in it."""
    count = QUICK if options.quick else None
    order = itertools.product(options.seeds, options.styles, options.presets)
    trials = [Trial(style, preset, seed, tuple(options.set), count) for seed, style, preset in order]
    open_trials = [trial for trial in trials if not store.has(trial)]
    print(f"{len(trials)} trials, {len(trials) - len(open_trials)} of them done before", file=sys.stderr, flush=True)
    sheets: dict[str, list[tuple[str, Tensor]]] = {style: [] for style in options.styles}
    for style in options.styles:
        concepts = len(held_out(style, tools()[0], count).captions)
        if options.sheets or not store.has_bounds(style, concepts):
            judged = bounds(style, count)
            store.add(result for result, _ in judged)
            sheets[style] = [(result.what, pictures) for result, pictures in judged]
    for result, pictures in worked(open_trials, options.jobs):
        store.add([result])
        sheets[result.style].insert(-2, (f"{result.what} {result.seed}", pictures))
        print(line(result), flush=True)
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
        for style, rows in sheets.items():
            draw_sheet(rows, held_out(style, tools()[0], count).captions).save(options.sheets / f"style-{style}.png")


def worked(trials: Iterable[Trial], jobs: int) -> Iterator[tuple[Result, Tensor]]:
    """The trials' results as they come, from so many processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=partial(torch.set_num_threads, 1)) as pool:
        for future in as_completed([pool.submit(run_trial, trial) for trial in trials]):
            yield future.result()


if __name__ == "__main__":
    main()
