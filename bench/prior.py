"""What prior preservation costs and saves: how far an adapter moves pictures whose prompt lacks the trigger.

``python -m bench.prior`` trains a pocket preset on the shipped styles with several weights of ``loss.prior_preservation`` and
prints, over the same held-out concepts and seeds as ``bench.style``,

* the leak: distance between the adapter's and the base's pictures of prompts without the trigger (RMSE at 16x16 pixels), and the
  share of them that the judge calls the style;
* the style: distance to the true pictures, and the share called the style, of prompts with the trigger.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

import morelora
from bench.judge import Judge
from bench.style.held import QUICK, ROOT, held_out, measure, sample
from bench.style.trial import config_for
from trainer.config import Config, ModelConfig
from trainer.models import Bundle, load
from trainer.train import train

HEAD = (
    "| style | prior_preservation | leak: distance to the base | leak: called the style | style: distance to the truth | "
    "style: called | training |\n|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """One training: means over the held-out concepts."""

    style: str
    weight: float
    leak: float
    leak_called: float
    distance: float
    called: float
    seconds: float


def bench_weight(style: str, weight: float, options: argparse.Namespace, judge: Judge, bundle: Bundle) -> Row:
    """Train once, load the file, and judge pictures with and without the trigger."""
    held = held_out(style, judge, options.count)
    trigger, _, _ = held.captions[0].partition(", ")
    plain = [caption.removeprefix(f"{trigger}, ") for caption in held.captions]
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"train.steps={options.steps}", f"loss.prior_preservation={weight}", "data.caption_dropout=0", *options.set]
        config = config_for(options.preset, style, Path(folder), changes)
        base = sample(bundle, plain, config)
        began = time.perf_counter()
        run = train(config, listener=lambda event: None)
        seconds = time.perf_counter() - began
        without, with_trigger = _adapted(bundle, run / f"{config.run.name}.safetensors", (plain, held.captions), config)
    leaked, learnt = measure(without, held, judge), measure(with_trigger, held, judge)
    leak = judge.distance(without, base).mean().item()
    return Row(style, weight, leak, leaked.called_style, learnt.distance, learnt.called_style, round(seconds, 1))


def _adapted(bundle: Bundle, file: Path, prompts: tuple[list[str], ...], config: Config) -> list[Tensor]:
    adapters = morelora.load(bundle.pipeline, file)
    pictures = [sample(bundle, captions, config) for captions in prompts]
    adapters.remove()
    return pictures


def line(row: Row) -> str:
    """A row of the Markdown table."""
    leak = f"{row.leak:.3f} | {row.leak_called:.0%}"
    return f"| {row.style} | {row.weight:g} | {leak} | {row.distance:.3f} | {row.called:.0%} | {row.seconds:.0f} s |"


def main(argv: list[str] | None = None) -> None:
    """Run the measurement, print the table, keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--styles", nargs="+", default=["duotone", "ink"])
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--preset", default="pocket-lora")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--count", type=int, default=QUICK, help="held-out concepts of each style")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ from the preset's")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "prior.json")
    options = parser.parse_args(argv)
    judge, bundle, rows = Judge.load(), load(ModelConfig()), []
    print(HEAD, flush=True)
    for style in options.styles:
        for weight in options.weights:
            rows.append(bench_weight(style, weight, options, judge, bundle))
            print(line(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"steps": options.steps, "preset": options.preset, "set": options.set, "rows": [asdict(row) for row in rows]}
    options.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
