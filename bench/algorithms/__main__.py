"""A page on every algorithm of the registry: docs/algorithms.md, and its plots.

    python -m bench.algorithms                    a minute

Formula, start, cost, file, source and use are the algorithm's own docstring; options are its ``Options``; parameters, ranks,
operations, bytes kept and files are counted on fresh adapters. A new algorithm of the registry has its section by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.algorithms.measured import measure, spectra
from bench.algorithms.page import page
from bench.algorithms.plots import cost_figures, draw_costs, draw_spectra
from bench.report import RESULTS
from morelora import ALGORITHMS
from morelora.atomic import write_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE, COSTS, SPECTRA = (DOCS / f"algorithms{end}" for end in (".md", "-cost.png", "-spectrum.png"))
REPORT = RESULTS / "algorithms.json"


def main() -> int:
    """Measure, write the JSON, the page and the plots."""
    report: dict[str, Any] = {"algorithms": {name: measure(name) for name in ALGORITHMS}, "spectra": spectra()}
    REPORT.write_text(json.dumps(report) + "\n", encoding="utf-8")
    write_text(FILE, page(report))
    draw_costs(cost_figures(report), COSTS)
    draw_spectra(report["spectra"], SPECTRA)
    return 0


if __name__ == "__main__":
    sys.exit(main())
