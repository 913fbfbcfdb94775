"""One training step of every algorithm beside lycoris-lora's and peft's version of it, on the same UNet in the same process.

    python -m bench.speed                      the shipped base: minutes
    python -m bench.speed --model sd15         SD 1.5's real widths, random weights: an hour of one core, 8 GB of memory

A step is forward, backward and one AdamW step. The forms of a family and the floor run in turn, round after round, so that
whatever else the machine does falls on all of them; a ratio is that of two steps of the same round, given as the median of the
rounds with the smallest and the largest. The floor is the frozen model with one trainable bias at its input, so that the gradient
runs through the whole of it; the same bias trains under every form. On one thread time is CPU time, which other processes disturb
least. With ``--only`` the other families keep the figures that they had.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.peers import FAMILIES, FORMS, chosen
from bench.report import RESULTS, machine, setting, write_part
from bench.step import SHAPES, WIDTHS, Step, build, inputs_for

FLOOR = "floor / frozen model"


def clock() -> Callable[[], float]:
    """CPU time on one thread, else the wall clock."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def measure(steps: list[Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round by the form's name, after one step of each that is not counted."""
    now = clock()
    seconds: dict[str, list[float]] = {step.form.name: [] for step in steps}
    for round_ in range(rounds + 1):
        for step in steps:
            gc.collect()
            start = now()
            step()
            if round_:
                seconds[step.form.name].append(round(now() - start, 4))
    return seconds


def family(frozen: Any, inputs: Any, name: str, rounds: int, only: str = "") -> dict[str, Any]:
    """The seconds of a family's forms and of the floor."""
    steps = [Step(form, frozen, inputs) for form in (FORMS[FLOOR], *chosen(name, only))]
    return {"rounds": rounds, "date": machine()["date"], "seconds": measure(steps, rounds)}


def ratio(mine: list[float], other: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios of the rounds."""
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def shown(mine: list[float], other: list[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*ratio(mine, other))


def rows(seconds: dict[str, list[float]]) -> list[str]:
    """A family's lines of the table: each form beside the floor, and ours beside each peer."""
    floor, names = seconds[FLOOR], [name for name in seconds if name != FLOOR]
    mine = seconds[names[0]]
    lines = []
    for name in names:
        title, _, library = name.partition(" / ")
        beside = "" if "morelora" in library else shown(mine, seconds[name])
        lines.append(f"| {title} | {library} | {min(seconds[name]):.3f} | {shown(seconds[name], floor)} | {beside} |")
    return lines


def better_peer(seconds: dict[str, list[float]]) -> str | None:
    """The form of another library that takes the least time."""
    peers = {name: statistics.median(of) for name, of in seconds.items() if name != FLOOR and "morelora" not in name}
    return min(peers, key=lambda name: peers[name]) if peers else None


def summary(families: dict[str, dict[str, Any]]) -> list[str]:
    """Ours beside the better peer of each family."""
    lines = []
    for name, found in families.items():
        seconds, peer = found["seconds"], better_peer(found["seconds"])
        if peer is not None:
            mine = seconds[f"{name} / morelora"]
            lines.append(f"{name}: {shown(mine, seconds[peer])} of {peer.partition(' / ')[2]}")
    return lines


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    families = {name: report["families"][name] for name in FAMILIES if name in report["families"]}
    lines = [
        setting(report["machine"]),
        f"Batch {report['batch']}, latents {report['side']}x{report['side']}; rounds: "
        + ", ".join(f"{name} {found['rounds']}" for name, found in families.items())
        + ".",
        "",
        "| family | library | best step, s | step / floor | ours / it |",
        "|---|---|---|---|---|",
        *(line for found in families.values() for line in rows(found["seconds"])),
        "",
        "Ours beside the better peer: " + "; ".join(summary(families)) + ".",
    ]
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.speed", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", choices=list(WIDTHS), default="pocket")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="regular expression: the forms to run, by name; the floor always runs")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, help="side of the latents")
    parser.add_argument("--output", type=Path, help="JSON file; default bench/results/speed-MODEL.json, and the docs' table")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure family after family, write the JSON after each, and the table at the end."""
    args = parse(argv)
    batch, side = args.batch or SHAPES[args.model][0], args.side or SHAPES[args.model][1]
    path = args.output or RESULTS / f"speed-{args.model}.json"
    report = {"machine": machine(), "model": args.model, "batch": batch, "side": side, "families": {}}
    if args.only and path.exists():
        report["families"] = json.loads(path.read_text()).get("families", {})
    frozen = build(args.model)
    inputs = inputs_for(frozen, batch, side)
    for name in (name for name in FAMILIES if chosen(name, args.only)):
        report["families"][name] = family(frozen, inputs, name, args.rounds, args.only)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        print("\n".join(rows(report["families"][name]["seconds"])), flush=True)
    print(table(report))
    if args.output is None:
        write_part(f"bench.speed {args.model}", table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
