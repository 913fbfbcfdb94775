"""docs/algorithms.md and its plots: fresh, with every algorithm, and of figures that are still so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from bench.algorithms import plots  # noqa: E402
from bench.algorithms.__main__ import COSTS, FILE, REPORT, SPECTRA  # noqa: E402
from bench.algorithms.measured import SPECTRUM, measure, spectra  # noqa: E402
from bench.algorithms.page import page, plain  # noqa: E402
from morelora import ALGORITHMS  # noqa: E402
from morelora.analysis.forms import FORMS  # noqa: E402

STORED = json.loads(REPORT.read_text(encoding="utf-8"))
AGAIN = "run: python -m bench.algorithms"
ROUNDED = ("effective",)
"""Figures of floating point; the others are counts."""


def test_the_page_and_its_plots_show_what_was_counted_of_every_algorithm() -> None:
    assert list(STORED["algorithms"]) == list(ALGORITHMS), AGAIN
    assert FILE.read_text(encoding="utf-8") == page(STORED), AGAIN
    assert plots.drawn_from(COSTS) == plots.digest(plots.cost_figures(STORED)), AGAIN
    assert plots.drawn_from(SPECTRA) == plots.digest(STORED["spectra"]), AGAIN


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_was_counted_is_still_so(name: str) -> None:
    found, stored = measure(name), dict(STORED["algorithms"].get(name, {}))
    for key in ROUNDED:
        assert found.pop(key) == pytest.approx(stored.pop(key), rel=0.02), AGAIN
    assert found == stored, AGAIN


def test_spectra_are_those_of_the_forms_and_end_at_their_bounds() -> None:
    found = spectra()
    assert found.keys() == STORED["spectra"].keys() == FORMS.keys(), AGAIN
    for name, values in found.items():
        bound = min(FORMS[name].bound(SPECTRUM), SPECTRUM.m)
        assert values == pytest.approx(STORED["spectra"][name], rel=0.02), AGAIN
        assert values[0] == 1 and (bound == SPECTRUM.m or max(values[bound:]) < 1e-5 < values[bound - 1])


def test_loras_figures_are_its_closed_form() -> None:
    row: dict[str, Any] = STORED["algorithms"]["lora"]
    assert row["trained"] == {"up": [640, 8], "down": [8, 640]} and row["rank"] == 8
    assert row["forward"] == pytest.approx(8 / 1024)  # W + up down, made once, beside 1,024 positions
    assert row["pocket"] * 2 < row["file"] < row["pocket"] * 2.3
    assert STORED["algorithms"]["full"]["rank"] == 640 and STORED["algorithms"]["bitfit"]["rank"] == 0


def test_a_plot_carries_the_hash_of_its_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    costs, file = plots.cost_figures(STORED), tmp_path / "plot.png"
    plots.draw_costs(costs, file)
    assert plots.drawn_from(file) == plots.digest(costs) != plots.digest(costs | {"new": [1, 1, 1.0, 1.0]})
    plots.draw_spectra(STORED["spectra"], file)
    assert plots.drawn_from(file) == plots.digest(STORED["spectra"])


def test_docstrings_become_markdown() -> None:
    assert plain("``W' = W`` and ``s``") == "`W' = W` and `s`"
