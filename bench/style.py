"""How well the four pocket presets learn a style from 12 pictures, on concepts that were not among them.

``python -m bench.style --quick`` trains every preset on every shipped style and prints, for the base and each adapter,

* the distance to the true pictures of the held-out concepts (RMSE at 16x16 pixels; true pictures through the VAE are the floor),
* the share of samples that the style judge calls the new style,
* the share whose concept the concept judge has among its first five, beside the same share for the true pictures.

Samples are made from the exported file, loaded by ``morelora.load``, never from the adapters in memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Generator, Tensor

import morelora
from bench.judge import Judge
from trainer import presets, settings
from trainer.config import Config, ModelConfig
from trainer.models import Bundle, load
from trainer.run import RunDir
from trainer.train import train

ROOT = Path(__file__).resolve().parents[1]
STYLES = ROOT / "assets" / "styles"
PRESETS = ("pocket-lora", "pocket-loha", "pocket-lokr", "pocket-dora")
QUICK, CHUNK, SEED = 50, 10, 5000
SHOWN = 12
"""Columns of the sheet."""


@dataclass(frozen=True)
class Held:
    """Held-out concepts of one style: captions, numbers of the judge, and true pictures ``(N, 3, 64, 64)`` in ``0 .. 1``."""

    style: str
    captions: list[str]
    concepts: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Scores:
    """Means over the held-out concepts."""

    distance: float
    called_style: float
    concept_top5: float
    concept_top1: float


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    style: str
    what: str
    scores: Scores
    seconds: float = 0.0
    file_bytes: int = 0


def held_out(style: str, judge: Judge, count: int | None) -> Held:
    """The truth of a style: every picture, or ``count`` evenly chosen ones."""
    files = sorted((STYLES / style / "truth").glob("*.png"))
    if count is not None and count < len(files):
        files = [files[i * len(files) // count] for i in range(count)]
    names = [file.stem.replace("_", " ") for file in files]
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files]
    truth = torch.stack([to_tensor(Image.open(file).convert("RGB")) for file in files])
    return Held(style, captions, torch.tensor([judge.concepts.index(name) for name in names]), truth)


def to_tensor(image: Image.Image) -> Tensor:
    """``(3, H, W)`` in ``0 .. 1``."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def measure(images: Tensor, held: Held, judge: Judge) -> Scores:
    """Judge pictures of the held-out concepts."""
    styles = judge.style_probs(images)
    called = torch.stack(list(styles.values())).argmax(0) == list(styles).index(held.style)
    ranks = judge.concept_ranks(images, held.concepts).float()
    distance = judge.distance(images, held.truth)
    return Scores(*(round(t.float().mean().item(), 4) for t in (distance, called, ranks <= 5, ranks <= 1)))


@torch.no_grad()
def sample(bundle: Bundle, captions: list[str], config: Config) -> Tensor:
    """One picture for each caption at fixed seeds, with the preset's preview settings."""
    pictures = []
    for start in range(0, len(captions), CHUNK):
        some = captions[start : start + CHUNK]
        latents = bundle.pipeline(
            some,
            num_inference_steps=config.preview.steps,
            guidance_scale=config.preview.guidance,
            width=64,
            height=64,
            generator=[Generator().manual_seed(SEED + start + i) for i in range(len(some))],
            output_type="latent",
        ).images
        pictures.append(bundle.decode_latents(latents))
    return torch.cat(pictures)


def through_vae(bundle: Bundle, images: Tensor) -> Tensor:
    """What the VAE leaves of true pictures: the best that any adapter can reach."""
    mean, _ = bundle.encode_pixels(images * 2 - 1)
    return bundle.decode_latents(mean)


def config_for(preset: str, style: str, output: Path, changes: Iterable[str]) -> Config:
    """A shipped preset on a style's training pictures."""
    trigger = (STYLES / style / "train" / "lion.txt").read_text(encoding="utf-8").split(",")[0]
    assignments = [
        f"data.images={STYLES / style / 'train'}",
        f"data.trigger={trigger}",
        f"run.output={output}",
        f"run.name={style}-{preset}",
        "preview.every=0",
        *changes,
    ]
    return settings.parse(settings.apply(presets.load(preset), assignments), preset)


def bench_style(
    style: str, names: list[str], judge: Judge, options: argparse.Namespace
) -> tuple[list[Row], list[tuple[str, Tensor]]]:
    """Rows and pictures of one style: base, adapters, true pictures."""
    held = held_out(style, judge, QUICK if options.quick else None)
    bundle = load(ModelConfig())
    reference = config_for(names[0], style, Path("unused"), options.set)
    base = sample(bundle, held.captions, reference)
    rows, sheets = [Row(style, "base", measure(base, held, judge))], [("base", base)]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            config = config_for(name, style, Path(folder), options.set)
            began = time.perf_counter()
            run = train(config, listener=lambda event: None)
            seconds = time.perf_counter() - began
            files, taken = take(bundle, run, config)
            pictures = sample(bundle, held.captions, config)
            for each in reversed(taken):
                each.remove()
            size = sum(file.stat().st_size for file in files)
            rows.append(Row(style, name, measure(pictures, held, judge), round(seconds, 1), size))
            sheets.append((name, pictures))
            print(line(rows[-1]), flush=True)
    ceiling = through_vae(bundle, held.truth)
    rows += [
        Row(style, "true, through the VAE", measure(ceiling, held, judge)),
        Row(style, "true", measure(held.truth, held, judge)),
    ]
    return rows, [*sheets, ("true", held.truth)]


def take(bundle: Bundle, run: Path, config: Config) -> tuple[list[Path], list[morelora.AdapterSet | morelora.EmbeddingSet]]:
    """A run's adapter and word, whichever it made, loaded from their files."""
    place = RunDir(run)
    adapter, word = place.export_file(config.run.name), place.embedding_file(config.run.name)
    taken: list[morelora.AdapterSet | morelora.EmbeddingSet] = []
    if adapter.is_file():
        taken.append(morelora.load(bundle.pipeline, adapter))
    if word.is_file():
        taken.append(morelora.load_embedding(bundle.pipeline, word))
    return [file for file in (adapter, word) if file.is_file()], taken


def line(row: Row) -> str:
    """A row of the Markdown table."""
    s = row.scores
    cost = f"{row.seconds:.0f} s | {row.file_bytes / 1024:.0f} KiB" if row.seconds else " | "
    shares = " | ".join(f"{share:.0%}" for share in (s.called_style, s.concept_top5, s.concept_top1))
    return f"| {row.style} | {row.what} | {s.distance:.3f} | {shares} | {cost} |"


HEAD = (
    "| style | what | distance to the true picture | called the style | concept top 5 | top 1 | training + previews | file |\n"
    "|---|---|---|---|---|---|---|---|"
)


def draw_sheet(rows: list[tuple[str, Tensor]], captions: list[str]) -> Image.Image:
    """A row for each model, a column for each concept, enlarged twice."""
    side, label = 128, 90
    chosen = [i * len(captions) // SHOWN for i in range(min(SHOWN, len(captions)))]
    sheet = Image.new("RGB", (label + side * len(chosen), 20 + side * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, i in enumerate(chosen):
        draw.text((label + side * column + 4, 4), captions[i].partition(", ")[2], fill="black")
    for row, (name, pictures) in enumerate(rows):
        draw.text((4, 20 + side * row + side // 2), name.replace("pocket-", ""), fill="black")
        for column, i in enumerate(chosen):
            pixels = (pictures[i].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            sheet.paste(
                Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS), (label + side * column, 20 + side * row)
            )
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Run the measurement, print the table, keep it as JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} held-out concepts for each style instead of all")
    parser.add_argument("--styles", nargs="+", default=sorted(path.name for path in STYLES.iterdir() if path.is_dir()))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that differ from the presets'")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "style.json")
    parser.add_argument("--sheets", type=Path, help="folder for a picture sheet of each style")
    options = parser.parse_args(argv)
    judge = Judge.load()
    rows: list[Row] = []
    print(HEAD, flush=True)
    for style in options.styles:
        found, pictures = bench_style(style, options.presets, judge, options)
        for row in found:
            if not row.seconds:
                print(line(row), flush=True)
        rows += found
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            captions = held_out(style, judge, QUICK if options.quick else None).captions
            draw_sheet(pictures, captions).save(options.sheets / f"style-{style}.png")
    about = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        json.dumps({"about": about, "set": options.set, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
