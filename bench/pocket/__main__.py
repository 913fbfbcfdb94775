"""Command line of the recipe. Steps write into --work, can be stopped and started again, and run in this order:

prepare (fetch and render the pictures), vae and unet (beside each other, if there are two cores), export (assets/pocket),
judge (assets/judge), styles (assets/styles), then report and sheet, which need nothing but the shipped assets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from . import export, judging, pictures, report, sheet, styles, unet, vae

ASSETS = Path(__file__).parents[2] / "assets"


def _prepare(args: argparse.Namespace) -> None:
    pictures.render_sets(args.work)
    pictures.save_atlas(pictures.load_work(args.work))


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "prepare": _prepare,
    "vae": lambda args: vae.train_codec(args.work, args.minutes or 45, args.start),
    "unet": lambda args: unet.train_unet(args.work, args.minutes or 65),
    "judge": lambda args: judging.train_judge(args.work, args.minutes or 10),
    "export": lambda args: export.export(args.work, args.out),
    "styles": lambda args: styles.write_styles(args.work, ASSETS / "styles"),
    "report": lambda args: report.report(args.out),
    "sheet": lambda args: sheet.write_sheet(args.out),
}


def main() -> None:
    """Parse and run one step."""
    parser = argparse.ArgumentParser("bench.pocket", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--work", type=Path, default=Path(".pocket-work"), help="folder of intermediate data")
    parser.add_argument("--out", type=Path, default=ASSETS / "pocket", help="the model folder written or measured")
    parser.add_argument("--minutes", type=float, help="length of a training step")
    parser.add_argument("--start", type=Path, help="vae: a codec folder to take layers of the same shape from")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    STEPS[args.step](args)


if __name__ == "__main__":
    main()
