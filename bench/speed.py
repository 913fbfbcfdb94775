"""One training step of our adapters beside lycoris-lora's and peft's, on the same UNet in the same process.

    python -m bench.speed                      tiny model of the shipped base's size: under a minute
    python -m bench.speed --model half         SD 1.5 at half its widths
    python -m bench.speed --model sd15         SD 1.5's real widths, random weights: minutes, 6 GB of memory

A step is forward, backward and one AdamW step. The forms run in turn, round after round, so that whatever else the machine
does falls on all of them. The floor is the frozen model with one trainable bias at its input, so that the gradient runs
through the whole of it; the same bias trains under every form. Time is the best round; on one thread it is CPU time, which
other processes disturb least. Memory is what autograd keeps for backward beside parameters, each storage counted once.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bench.peers import FORMS, Form  # noqa: E402

RESULTS = Path(__file__).parent / "results"
FLOOR = "floor / frozen model"
POCKET = Path(__file__).parent.parent / "assets" / "pocket" / "unet"
LAYERS = r"attn\d\.(to_q|to_k|to_v|to_out\.0)$|ff\.net\.(0\.proj|2)$"
"""Attention and feed-forward, which every library adapts by default."""

WIDTHS: dict[str, dict[str, Any]] = {
    "pocket": {
        "block_out_channels": (80, 160), "layers_per_block": 1, "cross_attention_dim": 192, "attention_head_dim": 5,
        "in_channels": 24, "out_channels": 24, "norm_num_groups": 16,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    },
    "half": {"block_out_channels": (160, 320, 640, 640), "cross_attention_dim": 768},
    "sd15": {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
}  # fmt: skip
SHAPES = {"pocket": (8, 8), "half": (1, 16), "sd15": (1, 32)}
"""Batch and latent side by model."""


def build(name: str) -> Any:
    """The frozen UNet: the shipped one for ``pocket`` if it is there, else random weights of those widths."""
    from diffusers import UNet2DConditionModel

    if name == "pocket" and POCKET.exists():
        return UNet2DConditionModel.from_pretrained(POCKET, torch_dtype=torch.float32).requires_grad_(False)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**WIDTHS[name])
    unet = unet.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in unet.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.fill_(float(leaf == "weight"))
    return unet


def twin(model: Any) -> Any:
    """Another copy of the modules around the same parameters."""
    return copy.deepcopy(model, memo={id(p): p for p in model.parameters()})


class Step:
    """One form's training step."""

    def __init__(self, form: Form, frozen: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        layers = [path for path, _ in frozen.named_modules() if re.search(LAYERS, path)]
        self.form = form
        self.model = twin(frozen).train()
        trained = form.install(self.model, layers)
        self.count = sum(p.numel() for p in trained)
        self.bias = self.model.conv_in.bias.requires_grad_()
        self.optimizer = torch.optim.AdamW([*trained, self.bias], lr=1e-9, fused=True)
        self.inputs = inputs

    def loss(self) -> Tensor:
        latents, text, target = self.inputs
        predicted = self.model(latents, 500, encoder_hidden_states=text).sample
        return nn.functional.mse_loss(predicted, target)

    def __call__(self) -> None:
        self.bias.requires_grad_()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def kept(self) -> int:
        """Bytes that autograd keeps for backward in storages that belong to no parameter."""
        self.bias.requires_grad_()
        parameters = {p.untyped_storage().data_ptr() for group in self.optimizer.param_groups for p in group["params"]}
        parameters |= {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(storages.values())


def clock() -> Callable[[], float]:
    """CPU time on one thread, else the wall clock."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def measure(steps: list[Step], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every round and bytes kept, by the form's name."""
    now = clock()
    seconds: dict[str, list[float]] = {step.form.name: [] for step in steps}
    for step in steps:
        step()
    for index in range(rounds):
        for step in steps:
            gc.collect()
            start = now()
            step()
            seconds[step.form.name].append(now() - start)
        print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
    return {step.form.name: describe(step, seconds) for step in steps}


def describe(step: Step, seconds: dict[str, list[float]]) -> dict[str, Any]:
    mine, floor = seconds[step.form.name], seconds[FLOOR]
    return {
        "family": step.form.family,
        "library": step.form.library,
        "parameters": step.count,
        "seconds": [round(s, 4) for s in mine],
        "ratio": round(min(mine) / min(floor), 3),
        "ratio_median": round(statistics.median(a / b for a, b in zip(mine, floor, strict=True)), 3),
        "kept_bytes": step.kept(),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text())
        cpu = found.group(1).strip() if found else cpu
    names = ("torch", "diffusers", "lycoris-lora", "peft")
    return {
        "cpu": cpu,
        "flags": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "command": " ".join(["python -m bench.speed", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    forms = report["forms"]
    floor = forms[FLOOR]
    head = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in head["versions"].items())
    lines = [
        f"`{head['command']}`, {head['date']}, {head['cpu']} ({head['flags']}), {head['threads']} thread(s), {versions}.",
        f"Floor: {min(floor['seconds']):.3f} s, {floor['kept_bytes'] / 1e6:.1f} MB kept. "
        f"Batch {report['batch']}, latents {report['side']}x{report['side']}, {report['rounds']} rounds.",
        "",
        "| form | library | step / floor (best) | (median) | kept, MB | kept / floor | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for form in forms.values():
        lines.append(
            f"| {form['family']} | {form['library']} | {form['ratio']:.2f} | {form['ratio_median']:.2f} | "
            f"{form['kept_bytes'] / 1e6:.1f} | {form['kept_bytes'] / floor['kept_bytes']:.2f} | {form['parameters']:,} |"
        )
    return "\n".join(lines)


def inputs_for(model: Any, batch: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, model.config.in_channels, side, side)
    latents, target = (torch.randn(shape, generator=generator) for _ in range(2))
    return latents, torch.randn(batch, 77, model.config.cross_attention_dim, generator=generator), target


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.speed", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", choices=list(WIDTHS), default="pocket")
    parser.add_argument("--quick", action="store_true", help="3 rounds; ratios then scatter by about 0.1")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="regular expression: the forms to run, by name; the floor always runs")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, help="side of the latents")
    parser.add_argument("--output", type=Path, help="JSON file; default bench/results/speed-MODEL.json")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, write the JSON and print the table."""
    args = parse(argv)
    batch, side = args.batch or SHAPES[args.model][0], args.side or SHAPES[args.model][1]
    frozen = build(args.model)
    inputs = inputs_for(frozen, batch, side)
    chosen = [form for form in FORMS.values() if form.name == FLOOR or re.search(args.only, form.name)]
    steps = [Step(form, frozen, inputs) for form in chosen]
    rounds = 3 if args.quick else args.rounds
    forms = measure(steps, rounds)
    report = {"machine": machine(), "model": args.model, "batch": batch, "side": side, "rounds": rounds, "forms": forms}
    path = args.output or RESULTS / f"speed-{args.model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
