"""A few training steps of a full-size model on this machine, from a single file, beside what was foretold of them.

    python -m bench.fullsize sd1       Stable Diffusion 1.5: 2 GB of disk, 4 GB of memory
    python -m bench.fullsize sdxl      Stable Diffusion XL: 7 GB of disk, 14 GB of memory

The checkpoint has random weights in the original key layout, and is deleted afterwards. One process makes the estimate of a dry
run, another one the run, without an estimate; the system tells its peak of resident memory. ``shapes`` is the estimate from the
meta device alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from bench.report import RESULTS, machine, write_part  # noqa: E402
from morelora.formats.original import LAYOUTS, Place  # noqa: E402
from trainer import settings  # noqa: E402
from trainer.estimate import PROGRAM, predict  # noqa: E402
from trainer.events import Event  # noqa: E402
from trainer.models import find  # noqa: E402
from trainer.models.parts import build_empty  # noqa: E402
from trainer.models.shapes import shipped  # noqa: E402
from trainer.train import train  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Noise:
    """Random weights at the price of a copy: one row of normal numbers, repeated and scaled."""

    def __init__(self, dtype: torch.dtype, count: int = 1 << 22) -> None:
        self.row = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)

    def like(self, key: str, wanted: Tensor) -> Tensor:
        """Variance ``1 / fan_in``; norms 1, biases 0."""
        if wanted.dim() == 1:
            return torch.full(wanted.shape, float(key.endswith("weight")), dtype=self.row.dtype)
        scale = (wanted.numel() / wanted.shape[0]) ** -0.5
        return self.row.repeat(-(-wanted.numel() // len(self.row)))[: wanted.numel()].view(wanted.shape) * scale


def checkpoint(family: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a single file of the family, by its original key."""
    noise, found = Noise(dtype), {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for name, layout in LAYOUTS[family].items():
        wanted = build_empty(name, shipped(family, name)).state_dict()
        for key, place in layout(wanted).items():
            tensor = noise.like(key, wanted[key])
            if place.third is None:
                found[place.key] = _original_form(tensor, place)
            else:
                thirds.setdefault(place.key, {})[place.third] = tensor
    return found | {key: torch.cat([parts[i] for i in range(3)]) for key, parts in thirds.items()}


def _original_form(tensor: Tensor, place: Place) -> Tensor:
    """The VAE's attention as 1x1 convolutions, a projection transposed."""
    if ".mid.attn_1." in place.key and tensor.dim() == 2:
        return tensor[:, :, None, None]
    return tensor.T.contiguous() if place.is_transposed else tensor


def values(file: Path, output: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A short run without anything that is not asked for: one small preview, no previews between."""
    return {
        "run": {"name": "fullsize", "output": str(output)},
        "model": {"base": str(file), "dtype": args.dtype},
        "data": {
            "images": str(ROOT / "assets" / "styles" / "duotone" / "train"), "trigger": "duo style",
            "resolution": args.resolution, "upscale": True,
        },
        "adapter": {"algorithm": "lora", "rank": 4, "layers": "attention"},
        "train": {
            "steps": args.steps, "text_encoder": False, "gradient_checkpointing": args.checkpointing,
            "precision": "fp32" if args.dtype == "fp32" else args.dtype,
        },
        "preview": {"prompts": ["{trigger}, fox"], "steps": 1, "guidance": 1.0, "width": 64, "height": 64},
    }  # fmt: skip


def _child(send: Connection, given: dict[str, Any], dry_run: bool) -> None:
    """A run in a process of its own: its events, and the most resident memory that it had."""
    events: list[Event] = []
    train(settings.parse(given, "bench"), listener=events.append, dry_run=dry_run)
    send.send(([json.loads(event.to_json()) for event in events], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def in_a_process_of_its_own(given: dict[str, Any], dry_run: bool) -> tuple[list[dict[str, Any]], int]:
    """``_child``'s answer, from a fresh interpreter."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, given, dry_run))
    child.start()
    send.close()
    answer: tuple[list[dict[str, Any]], int] = receive.recv()
    child.join()
    return answer


def compare(given: dict[str, Any]) -> dict[str, Any]:
    """What a dry run foretells, and what a run without any estimate then does."""
    foretold, _ = in_a_process_of_its_own(given, dry_run=True)
    events, peak = in_a_process_of_its_own(given | {"device": {"estimate": False}}, dry_run=False)
    plan = next(event["plan"] for event in foretold if event["event"] == "Started")
    seconds = [1 / event["rate"] for event in events if event["event"] == "Step"][1:]  # the first one claims its memory
    bucket = max((tuple(map(int, name.split("x"))) for name in plan["buckets"]), key=lambda size: size[0] * size[1])
    config = settings.parse(given, "bench")
    need = predict(config, find(config.model), bucket, torch.device("cpu"))
    return {
        "peak": peak,
        "seconds": sum(seconds) / len(seconds),
        "estimate": plan["estimate"],
        "shapes": PROGRAM + need.total,
        "losses": [event["loss"] for event in events if event["event"] == "Step"],
        "readers": [event["message"] for event in events if event["event"] == "Verified"],
    }


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    found, foretold = report["found"], report["found"]["estimate"]
    head = report["machine"]
    gib = {
        name: size / (1 << 30)
        for name, size in (("peak", found["peak"]), ("told", foretold["memory"]), ("meta", found["shapes"]))
    }
    return "\n".join([
        f"`{report['command']}`, {head['date']}, {head['cpu']}, {head['threads']} thread(s), torch {head['versions']['torch']}.",
        "",
        "| model | found | foretold | error | by shapes alone |",
        "|---|---|---|---|---|",
        f"| {report['family']}, peak | {gib['peak']:.2f} GiB | {gib['told']:.2f} GiB | {gib['told'] / gib['peak'] - 1:+.1%} "
        f"| {gib['meta']:.2f} GiB ({gib['meta'] / gib['peak'] - 1:+.1%}) |",
        f"| {report['family']}, step | {found['seconds']:.1f} s | {foretold['step_seconds']:.1f} s "
        f"| {foretold['step_seconds'] / found['seconds'] - 1:+.1%} |  |",
    ])  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint, train, report, delete."""
    parser = argparse.ArgumentParser(prog="bench.fullsize", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("family", choices=list(LAYOUTS))
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6, help="at least 2: the first one is not counted in the time")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file; default bench/results/fullsize-FAMILY.json")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "model.safetensors"
        save_file(checkpoint(args.family, DTYPES["bf16"]), file)
        found = compare(values(file, Path(name), args))
    command = " ".join(["python -m bench.fullsize", *(sys.argv[1:] if argv is None else argv)])
    report = {"machine": machine(), "command": command, "family": args.family, "found": found}
    path = args.output or RESULTS / f"fullsize-{args.family}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    if args.output is None:
        write_part(f"bench.fullsize {args.family}", table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
