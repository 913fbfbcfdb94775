"""The cost table against closed counts; it has every algorithm, whatever the registry holds."""

import pytest
from torch import nn

from morelora import ALGORITHMS
from morelora.analysis.costs import cost_table, described, linear_place

WIDTH, TOKENS, RANK = 32, 64, 4


@pytest.fixture(scope="module")
def rows():
    return {row["algorithm"]: row for row in cost_table(linear_place(WIDTH, TOKENS), RANK)}


def test_every_algorithm_has_a_row(rows):
    assert list(rows) == list(ALGORITHMS)
    assert all(row["parameters"] > 0 and row["forward"] >= 0 and row["training"] >= 0 for row in rows.values())


def test_loras_row_is_the_closed_form(rows):
    row, macs = rows["lora"], 2 * TOKENS * WIDTH * WIDTH
    assert row["parameters"] == RANK * 2 * WIDTH and row["rank of the change"] == RANK
    branch, summed = 2 * TOKENS * RANK * 2 * WIDTH / macs, 2 * WIDTH * RANK * WIDTH / macs
    assert row["forward"] == pytest.approx(branch) or row["forward"] == pytest.approx(summed)
    assert row["file"] == RANK * 2 * WIDTH + 1


def test_full_and_serial(rows):
    assert rows["full"]["file"] == WIDTH * WIDTH + WIDTH and rows["full"]["rank of the change"] is None
    assert rows["full"]["training"] == pytest.approx(0.5)
    assert rows["serial"]["file"] is None
    assert rows["serial"]["forward"] == pytest.approx(2 * RANK / WIDTH)


def test_the_layer_is_left_as_it_was():
    place = linear_place(8, 4)
    cost_table(place, RANK)
    assert type(place.layer) is nn.Linear and not place.layer._forward_hooks


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_docstring_tells_formula_parameters_cost_and_export(name):
    told = described(ALGORITHMS[name])
    assert {"Formula", "Parameters", "Cost", "Export"} <= told.keys()
