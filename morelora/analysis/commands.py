"""``python -m morelora analyse``: forms and their rank, costs, one file's spectra, two files' subspaces, amplification."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from morelora.analysis.compared import amplified, compared
from morelora.analysis.costs import cost_table
from morelora.analysis.forms import SEEDS, measure
from morelora.errors import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import open_adapter

Row = dict[str, Any]


def add_analyse(commands: Any) -> None:
    """The command and its options."""
    command = commands.add_parser("analyse", help="rank and cost of the forms; subspaces of one or two files")
    command.add_argument("file", type=Path, nargs="?", help="an adapter file")
    command.add_argument("other", type=Path, nargs="?", help="a second one: similarity phi and Grassmann distance")
    command.add_argument("--base", type=Path, metavar="MODEL", help="the base model: amplification factors")
    command.add_argument("--vectors", type=int, default=8, help="how many singular directions are compared [8]")
    command.add_argument("--forms", action="store_true", help="rank of each form against its bound and parameter count")
    command.add_argument("--costs", action="store_true", help="parameters, rank, operations and file size of every algorithm")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_analyse)


def _analyse(options: argparse.Namespace) -> None:
    rows = _rows(options)
    print(json.dumps(rows, indent=1) if options.json else "\n".join(table(rows)))


def _rows(options: argparse.Namespace) -> list[Row]:
    asked = [bool(options.file), options.forms, options.costs]
    if sum(asked) != 1:
        raise FormatError("give one of: a file (or two), --forms, --costs")
    if options.vectors < 1:
        raise FormatError(f"--vectors is {options.vectors}: at least 1")
    if options.forms:
        return form_rows()
    if options.costs:
        return cost_table()
    base = None if options.base is None else Checkpoint.open(options.base)
    first = open_adapter(options.file, base).whole()
    if options.other is not None:
        return compared(first, open_adapter(options.other, base).whole(), options.vectors)
    if base is None:
        raise FormatError("give a second file to compare with, or --base for amplification; inspect tells of one file alone")
    return amplified(first, base, options.vectors)


def form_rows() -> list[Row]:
    """The design notes' cases, measured."""
    return [{"form": name, "m": s.m, "n": s.n, "r": s.r, "k": s.k} | vars(measure(name, s)) for name, s in SEEDS]


def table(rows: list[Row]) -> list[str]:
    """Rows as columns of text."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads, *([_cell(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
