"""Steps a second and peak memory on a GPU: our adapters beside peft's, as in the diffusers example script, and lycoris-lora's.

    python -m bench.gpu                    every model, form and variant: most of it is compiling
    python -m bench.gpu --only "LoRA"      forms by a regular expression of their name
    python -m bench.gpu --models sd15-1    some of sd15-1, sd15-4 (512 pixels, batch 1 and 4), sdxl-1 (1024 pixels)

UNets of full size with random weights in bf16; adapters in float32 on the attention layers, which is what the example script
adapts; bf16 autocast; fused AdamW. A variant is plain, compiled (regional ``torch.compile``) or gradient checkpointing. All
cells of one model run after each other in one process on one set of frozen weights, so that they compare; nothing is said
where there is no NVIDIA card. The JSON is written after each cell, so that a run that is cut keeps what it measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.peers import Form, lycoris, nothing, ours, peft
from bench.report import RESULTS, machine
from bench.step import twin
from trainer.models.parts import build_empty
from trainer.models.shapes import shipped

LAYERS = r"attn\d\.(to_q|to_k|to_v|to_out\.0)$"
VARIANTS = ("plain", "compile", "checkpointing")
WARM_UP, STEPS = 4, 12
NEEDS = "bench.gpu measures NVIDIA cards, and torch sees none here: run it on a machine with one"


@dataclass(frozen=True)
class Case:
    """A model at a size. ``tiny`` stands for the others where only the program is tried."""

    family: str
    batch: int
    side: int
    """Of the latents."""


CASES = {"sd15-1": Case("sd1", 1, 64), "sd15-4": Case("sd1", 4, 64), "sdxl-1": Case("sdxl", 1, 128), "tiny": Case("tiny", 1, 8)}
TINY = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


def _forms() -> Iterator[Form]:
    large = 1_000_000  # a rank so large that LyCORIS' rule, which peft copied, takes the full block
    yield Form("floor", "frozen model", nothing)
    yield Form("LoRA r16", "morelora", ours("lora", rank=16))
    yield Form("LoRA r16", "peft (diffusers example)", peft("Lora", r=16, lora_alpha=16))
    yield Form("LoRA r16", "lycoris", lycoris("lora", lora_dim=16, alpha=16))
    yield Form("LoHa r8", "morelora", ours("loha", rank=8))
    yield Form("LoHa r8", "peft", peft("LoHa", r=8, alpha=8))
    yield Form("LoHa r8", "lycoris", lycoris("loha", lora_dim=8, alpha=8))
    yield Form("LoKr f8", "morelora", ours("lokr", factor=8, full_matrix=True))
    yield Form("LoKr f8", "peft", peft("LoKr", r=large, alpha=large, decompose_factor=8))
    yield Form("LoKr f8", "lycoris", lycoris("lokr", factor=8, full_matrix=True))
    yield Form("DoRA r16", "morelora", ours("lora", axis="input", rank=16))
    yield Form("DoRA r16", "peft", peft("Lora", r=16, lora_alpha=16, use_dora=True))
    yield Form("DoRA r16", "lycoris", lycoris("lora", lora_dim=16, alpha=16, weight_decompose=True, wd_on_out=False))


FORMS = tuple(_forms())


@dataclass(frozen=True)
class Cell:
    """What one form did in one variant."""

    case: str
    family: str
    library: str
    variant: str
    rate: float
    """Steps a second."""
    peak: int
    """Bytes at the peak, frozen weights included; 0 on a CPU."""
    problem: str = ""


def build(case: Case, device: torch.device) -> Any:
    """The frozen UNet in bf16 with random weights."""
    config = TINY if case.family == "tiny" else shipped(case.family, "unet")
    unet: Any = build_empty("unet", config).to(torch.bfloat16).to_empty(device=device).requires_grad_(False)
    for module in unet.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.fill_(float(leaf == "weight"))
    return unet


def inputs_for(unet: Any, case: Case, device: torch.device) -> dict[str, Any]:
    """What a step predicts from; SDXL's pooled text and sizes too."""
    shape = (case.batch, unet.config.in_channels, case.side, case.side)
    given: dict[str, Any] = {
        "sample": torch.randn(shape, device=device),
        "timestep": torch.full((case.batch,), 500, device=device),
        "encoder_hidden_states": torch.randn(case.batch, 77, unet.config.cross_attention_dim, device=device),
    }
    if case.family == "sdxl":
        sizes = torch.full((case.batch, 6), 1024.0, device=device)
        given["added_cond_kwargs"] = {"text_embeds": torch.randn(case.batch, 1280, device=device), "time_ids": sizes}
    return given


def run(name: str, frozen: Any, form: Form, variant: str, steps: tuple[int, int]) -> Cell:
    """One cell; what a library raises is its result, and the others go on."""
    device = frozen.conv_in.weight.device
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        rate = _rate(frozen, form, variant, CASES[name], steps)
    except Exception as error:  # out of memory, or a library that cannot be compiled
        return Cell(name, form.family, form.library, variant, 0.0, 0, f"{type(error).__name__}: {str(error)[:100]}")
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Cell(name, form.family, form.library, variant, rate, peak)


def _rate(frozen: Any, form: Form, variant: str, case: Case, steps: tuple[int, int]) -> float:
    unet, device = twin(frozen).train(), frozen.conv_in.weight.device
    trained = form.install(unet, [path for path, _ in frozen.named_modules() if re.search(LAYERS, path)]).parameters
    for parameter in trained:
        parameter.data = parameter.data.to(device, torch.float32)
    bias = nn.Parameter(torch.zeros(1, device=device))  # the floor has nothing else that trains; it trains under every form
    if variant == "checkpointing":
        unet.enable_gradient_checkpointing()
    if variant == "compile":
        unet.compile_repeated_blocks()
    optimizer = torch.optim.AdamW([*trained, bias], lr=1e-9, fused=True)
    given, target = inputs_for(unet, case, device), torch.zeros((), device=device)

    def step() -> Tensor:
        shifted = given | {"sample": given["sample"] + bias}
        with torch.autocast(device.type, torch.bfloat16):
            predicted = unet(**shifted).sample
        loss = nn.functional.mse_loss(predicted.float(), target.expand_as(predicted))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    warm, count = steps
    for _ in range(warm):
        loss = step()
    loss.item()  # waits for the device
    start = time.perf_counter()
    for _ in range(count):
        loss = step()
    loss.item()
    return count / (time.perf_counter() - start)


def table(head: str, cells: list[Cell]) -> str:
    """The cells as Markdown; a form's variants stand beside each other."""
    lines = [head, "", "| model | form | library | " + " | ".join(f"{v}, steps/s | GiB" for v in VARIANTS) + " |"]
    lines += ["|---|---|---|" + "---|---|" * len(VARIANTS)]
    rows: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.case, cell.family, cell.library), {})[cell.variant] = cell
    for key, by_variant in rows.items():
        lines.append("| " + " | ".join([*key, *(_shown(by_variant.get(variant)) for variant in VARIANTS)]) + " |")
    return "\n".join(lines)


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return " | "
    return f"failed: {cell.problem} | " if cell.problem else f"{cell.rate:.2f} | {cell.peak / (1 << 30):.2f}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=["sd15-1", "sd15-4", "sdxl-1"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--only", default="", help="regular expression of the forms' names; the floor always runs")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu only tries the program, with --models tiny"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps of each cell")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, write the JSON and print the table."""
    args = parse(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NEEDS, file=sys.stderr)
        return 2
    if args.device == "cpu" and args.models != ["tiny"]:
        print("--device cpu goes with --models tiny alone: the others take hours there and say nothing of a GPU", file=sys.stderr)
        return 2
    about, cells = machine(), []
    card = torch.cuda.get_device_name(0) if args.device == "cuda" else about["cpu"]
    for cell in measure(args):
        cells.append(cell)
        print(cell, file=sys.stderr, flush=True)
        report = {"card": card, "machine": about, "cells": [asdict(cell) for cell in cells]}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(table(f"{card}, torch {about['versions']['torch']}, {about['date']}, `python -m bench.gpu`.", cells))
    return 0


def measure(args: argparse.Namespace) -> Iterator[Cell]:
    """Every chosen cell, one after the other; models in turn, so that one lies on the device at a time."""
    device = torch.device(args.device)
    steps = (WARM_UP if args.device == "cuda" else 1, args.steps)
    chosen = [form for form in FORMS if form.family == "floor" or re.search(args.only, form.name)]
    for name in args.models:
        frozen = build(CASES[name], device)
        for variant, form in product(args.variants, chosen):
            yield run(name, frozen, form, variant, steps)
        del frozen


if __name__ == "__main__":
    raise SystemExit(main())
