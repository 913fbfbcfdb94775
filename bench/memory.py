"""What every algorithm keeps for backward, and its file, beside lycoris-lora's and peft's version, on the same UNet.

    python -m bench.memory                     the shipped base: a minute
    python -m bench.memory --model sd15        SD 1.5's real widths, random weights: minutes, 8 GB of memory

Kept is what autograd holds after a forward pass beside parameters and buffers, each storage counted once: bytes, the same in
every run. The floor is the frozen model with one trainable bias at its input. A file holds its library's own tensors in fp16,
random numbers in those that train; ours is the form for web UIs, and for adapters that are no change of weights our own.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from bench.peers import FAMILIES, FORMS, chosen
from bench.report import RESULTS, machine, setting, write_part
from bench.speed import FLOOR
from bench.step import SHAPES, WIDTHS, Step, build, inputs_for


@torch.no_grad()
def file_bytes(step: Step) -> int:
    """Of the form's file in fp16."""
    for parameter in step.trained.parameters:
        parameter.normal_(0, 0.02)
    tensors = {name: tensor.detach().half().clone() for name, tensor in step.trained.tensors().items()}
    return len(save(tensors)) if tensors else 0


def family(frozen: Any, inputs: Any, name: str, only: str = "") -> dict[str, dict[str, int]]:
    """Bytes kept, bytes of the file and parameters by the form's name."""
    found = {}
    for form in (FORMS[FLOOR], *chosen(name, only)):
        gc.collect()
        step = Step(form, frozen, inputs)
        found[form.name] = {"kept": step.kept(), "file": file_bytes(step), "parameters": step.count}
    return found


def rows(found: dict[str, dict[str, int]]) -> list[str]:
    """A family's lines of the table: each form beside the floor, and ours beside each peer."""
    floor, names = found[FLOOR], [name for name in found if name != FLOOR]
    mine, lines = found[names[0]], []
    for name in names:
        (title, _, library), it = name.partition(" / "), found[name]
        beside = " | " if "morelora" in library else f"{mine['kept'] / it['kept']:.2f} | {mine['file'] / it['file']:.2f}"
        lines.append(
            f"| {title} | {library} | {it['kept'] / 1e6:.1f} | {it['kept'] / floor['kept']:.2f} | {it['file'] / 1024:,.0f} | "
            f"{it['parameters']:,} | {beside} |"
        )
    return lines


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    families = {name: report["families"][name] for name in FAMILIES if name in report["families"]}
    floor = next(iter(families.values()))[FLOOR]["kept"]
    lines = [
        setting(report["machine"]),
        f"Batch {report['batch']}, latents {report['side']}x{report['side']}; the floor keeps {floor / 1e6:.1f} MB.",
        "",
        "| family | library | kept, MB | kept / floor | file, KiB | parameters | ours / it, kept | file |",
        "|---|---|---|---|---|---|---|---|",
        *(line for found in families.values() for line in rows(found)),
    ]
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.memory", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", choices=list(WIDTHS), default="pocket")
    parser.add_argument("--only", default="", help="regular expression: the forms to measure, by name")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, help="side of the latents")
    parser.add_argument("--output", type=Path, help="JSON file; default bench/results/memory-MODEL.json, and the docs' table")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, write the JSON and the table."""
    args = parse(argv)
    batch, side = args.batch or SHAPES[args.model][0], args.side or SHAPES[args.model][1]
    path = args.output or RESULTS / f"memory-{args.model}.json"
    report = {"machine": machine(), "model": args.model, "batch": batch, "side": side, "families": {}}
    if args.only and path.exists():
        report["families"] = json.loads(path.read_text())["families"]
    frozen = build(args.model)
    inputs = inputs_for(frozen, batch, side)
    for name in (name for name in FAMILIES if chosen(name, args.only)):
        report["families"][name] = family(frozen, inputs, name, args.only)
        print("\n".join(rows(report["families"][name])), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    if args.output is None:
        write_part(f"bench.memory {args.model}", table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
