"""A large folder from its first start to its second: rates, memory, and whether any picture is lost.

``python -m bench.dataset`` makes 2,000 pictures of mixed size, format and caption, then in this order: reads them, encodes them,
deals out three epochs, and starts again with what the first start kept. Memory is the process's resident set; its slope is a
straight line fitted through one value a picture after the first fifth. Latents that are kept in memory on purpose
(``entries.IN_MEMORY``) are taken off the encoding's slope. Without ``--base`` the encoder takes means of 8x8 blocks, so that the
figures are those of reading, cropping, hashing and writing alone.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from trainer.config import Config, DataConfig, ModelConfig, TrainConfig
from trainer.data import Cache, Dataset, Dealing, Encoded, Loader, PixelEncoder, Views, scan
from trainer.data.looks import Known, Watch

FORMATS = (("png", {"compress_level": 1}), ("jpg", {"quality": 90}), ("webp", {"quality": 80}))
EPOCHS = 3
WORDS = ("fox", "boat", "lamp", "tree", "key", "cup", "road")


@dataclass
class Phase:
    """One stage's time and memory: a resident set, in bytes, after each picture."""

    name: str
    start: float = field(default_factory=time.perf_counter)
    start_cpu: float = field(default_factory=time.process_time)
    seconds: float = 0.0
    cpu: float = 0.0
    resident: list[int] = field(default_factory=list)

    def tick(self, *progress: int) -> None:
        """After each picture: how much memory is resident."""
        self.resident.append(psutil.Process().memory_info().rss)

    def end(self) -> Phase:
        self.seconds, self.cpu = time.perf_counter() - self.start, time.process_time() - self.start_cpu
        return self

    @property
    def slope(self) -> float:
        """Bytes a picture, by least squares, after the first fifth."""
        late = np.array(self.resident[len(self.resident) // 5 :], dtype=float)
        return float(np.polyfit(np.arange(len(late)), late, 1)[0]) if len(late) > 2 else 0.0


@dataclass
class Encoder:
    """Counts what it encodes."""

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    fingerprint: str
    encoded: int = 0
    kept: int = 0
    """Bytes of latents that were given out."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.encode(pixels)
        self.encoded += len(pixels)
        self.kept += mean.nbytes + std.nbytes
        return mean, std


def blocks(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[B, 4, H / 8, W / 8]``: the blocks' means and their sum; std 0.1."""
    means = functional.avg_pool2d(pixels, 8)
    mean = torch.cat([means, means.sum(1, keepdim=True)], 1)
    return mean, torch.full_like(mean, 0.1)


def make(folder: Path, count: int, sides: tuple[int, int]) -> None:
    """Smooth random pictures with sides between ``sides``, every third with another format; four of five have a caption."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        size = tuple(int(side) for side in draw.integers(*sides, 2))
        image = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        suffix, options = FORMATS[index % len(FORMATS)]
        image.save(folder / f"{index:05d}.{suffix}", **options)
        if index % 5:
            words = draw.choice(WORDS, 3, replace=False)
            (folder / f"{index:05d}.txt").write_text(", ".join(words), encoding="utf-8")


def start(state: Path, config: Config, encoder: Encoder) -> tuple[list[Phase], Dataset, Loader]:
    """One start of a run: read, then encode what ``state`` lacks."""
    known = Known.read(state / "looks.json")
    reading = Phase("read")
    dataset = scan(config.data, watch=Watch(progress=reading.tick), known=known)
    reading.end()
    state.mkdir(exist_ok=True)
    known.write(state / "looks.json")
    encoding = Phase("encode")
    cache = Cache(state, progress=encoding.tick)
    views = Views(dataset)
    latents = cache.latents(views, PixelEncoder(encoder, encoder.fingerprint))
    encoding.end()
    loader = Loader(views, Encoded(latents, None, None), Dealing.of(config))
    return [reading, encoding], dataset, loader


def deal(dataset: Dataset, loader: Loader, epochs: int) -> tuple[Phase, set[int]]:
    """Every batch of some epochs, and how often the pictures were seen, which must be one number."""
    phase, seen = Phase(f"{epochs} epochs"), Counter()
    for k in range(epochs * loader.batches_per_epoch):
        seen.update(loader.batch(k).items)
        phase.tick()
    return phase.end(), {seen[index] for index in range(len(dataset.items))}


def measure(state: Path, config: Config, encoder: Encoder) -> tuple[list[str], bool]:
    """Rows of the table, and whether everything was as it must be: none lost, nothing done twice."""
    first, dataset, loader = start(state, config, encoder)
    encoded, kept = encoder.encoded, encoder.kept
    dealing, times_seen = deal(dataset, loader, EPOCHS)
    second, again, _ = start(state, config, encoder)
    count = len(dataset.items)
    rows = [
        row("first start: read and decode", first[0], count),
        row("first start: crop, encode, write", first[1], count, kept / max(encoded, 1)),
        row(f"{EPOCHS} epochs of batches", dealing, EPOCHS * count),
        row("second start: read", second[0], count),
        row("second start: load latents", second[1], count),
    ]
    sound = times_seen == {EPOCHS} and encoded == count and encoder.encoded == encoded and again == dataset
    return rows, sound


def row(name: str, phase: Phase, pictures: int, kept: float = 0.0) -> str:
    """A line of the table; ``kept`` bytes a picture stay in memory on purpose. No slope where nothing ticked."""
    megabytes = max(phase.resident, default=0) / 2**20
    slope = f"{(phase.slope - kept) / 2**10:+.1f}" if len(phase.resident) > 2 else ""
    figures = [
        f"{phase.seconds:.1f}",
        f"{phase.cpu:.1f}",
        f"{pictures / phase.cpu:,.0f}",
        f"{megabytes:.0f}",
        f"{kept / 2**10:.0f}",
    ]
    return f"| {' | '.join([name, *figures, slope])} |"


def config_of(folder: Path, resolution: int) -> Config:
    """Plain settings: one bucket a picture, no mirror images."""
    data = DataConfig(images=str(folder), resolution=resolution, bucket_step=resolution // 8)
    return Config(data=data, train=TrainConfig(batch_size=4))


def encoder_of(base: str) -> Encoder:
    """The base model's VAE, or block means where none is named."""
    if not base:
        return Encoder(blocks, "blocks")
    from trainer.models import load

    bundle = load(ModelConfig(base=base))
    return Encoder(bundle.encode_pixels, bundle.fingerprint("vae"))


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table; 1 where a picture was lost or done twice."""
    parser = argparse.ArgumentParser(prog="bench.dataset", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--sides", type=int, nargs=2, default=(300, 1000), help="least and most pixels of a side")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--base", default="", help="encode with the VAE of this base model, such as pocket")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        folder, state = Path(place, "pictures"), Path(place, "state")
        make(folder, args.pictures, tuple(args.sides))
        time.sleep(4)  # a file that was written a moment ago is looked at again
        rows, sound = measure(state, config_of(folder, args.resolution), encoder_of(args.base))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s) of torch, {args.pictures} pictures")
    print(
        "\n| phase | seconds | CPU seconds | pictures per CPU second | resident, MiB | kept, KiB a picture | slope beside that |"
    )
    print("\n".join(["|---|---|---|---|---|---|---|", *rows]))
    print("\nno picture lost, nothing done twice" if sound else "\nFAULT: a picture was lost or done twice")
    return 0 if sound else 1


if __name__ == "__main__":
    raise SystemExit(main())
