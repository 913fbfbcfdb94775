"""The design notes' figures, and the closed counts and bounds against the algorithms themselves."""

import pytest
import torch

from morelora import ALGORITHMS
from morelora.analysis.forms import FORMS, SEEDS, Shape, measure
from morelora.site import Site

FIGURES = {
    ("additive", Shape(100, 100, 20)): (4000, 40),
    ("hadamard", Shape(100, 100, 15, 3)): (3000, 100),
    ("hadamard", Shape(768, 1024, 16, 4)): (28672, 256),
    ("tanh", Shape(100, 100, 3, 1)): (600, 100),
}
"""As printed there, but for the last: the notes print the bound of the factors, 3, and the change has full rank."""


def test_the_design_notes_figures():
    assert set(FIGURES) == set(SEEDS)
    for (name, shape), (parameters, rank) in FIGURES.items():
        found = measure(name, shape)
        assert (found.parameters, found.rank) == (parameters, rank), name
        assert found.rank <= found.bound and found.share == parameters / (shape.m * shape.n)


def test_small_arguments_of_tanh_are_nearly_of_low_rank():
    """tanh(z) = z - z^3 / 3 + ...: of the products' own rank as z goes to 0, and never exactly."""
    change = FORMS["tanh"].sample(Shape(100, 100, 3), torch.Generator().manual_seed(0)).atanh()
    for size, least in ((1.0, 0.01), (0.01, 1e-3)):
        values = torch.linalg.svdvals((size * change).tanh())
        rest = float(values[3:].norm() / values.norm())
        assert rest > 1e-12 and (rest > least if size == 1.0 else rest < least)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shape", [Shape(12, 20, 4, 2), Shape(20, 12, 5, 3), Shape(16, 16, 6, 4)], ids=str)
def test_no_change_is_above_its_bound(name, shape):
    found = measure(name, shape)
    assert 1 <= found.rank <= found.bound <= min(shape.m, shape.n) and found.effective <= found.rank + 1e-9


@pytest.mark.parametrize(
    ("name", "shape", "rank"), [("hadamard", Shape(60, 60, 7, 3), 12), ("kronecker", Shape(24, 24, 2, 4), 8)]
)
def test_the_bounds_are_reached(name, shape, rank):
    """Seven columns in three parts: 3 * 2 * 2 = 12."""
    assert measure(name, shape).rank == rank == FORMS[name].bound(shape)


def test_the_additive_form_is_its_index_formula():
    shape, generator = Shape(7, 9, 4), torch.Generator().manual_seed(3)
    change = FORMS["additive"].sample(shape, generator)
    again = torch.Generator().manual_seed(3)
    u, v = (torch.randn(size, 4, generator=again, dtype=torch.float64) for size in (7, 9))
    for i in range(7):
        for j in range(9):
            assert change[i, j] == u[i, j % 4] + v[j, i % 4]


@pytest.mark.parametrize(
    ("form", "algorithm", "shape", "options"),
    [
        ("lora", "lora", Shape(24, 40, 6), {"rank": 6}),
        ("hadamard", "loha", Shape(24, 40, 6, 2), {"rank": 3}),
        ("hadamard", "hadamard", Shape(24, 40, 9, 3), {"rank": 9, "k": 3}),
        ("additive", "additive", Shape(24, 40, 4), {"rank": 4}),
        ("kronecker", "lokr", Shape(24, 40, 2, 4), {"rank": 2, "factor": 4}),
    ],
)
def test_counts_and_bounds_are_those_of_the_algorithms(form, algorithm, shape, options):
    if algorithm not in ALGORITHMS:
        pytest.skip("no such algorithm here")
    kind = ALGORITHMS[algorithm]
    adapter = kind(Site(shape.m, shape.n), kind.Options(**options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=generator)
        rank = int(torch.linalg.matrix_rank(adapter.delta(torch.zeros(shape.m, shape.n)).double(), rtol=1e-6))
    assert sum(p.numel() for p in adapter.parameters()) == FORMS[form].parameters(shape)
    assert rank == min(FORMS[form].bound(shape), shape.m, shape.n)
