"""Cut spectra against products and norms written out, in float64."""

import math

import pytest
import torch

from morelora.errors import NonFiniteTensorError
from morelora.lowrank import Cut, Spectrum, effective_rank, numerical_rank


def change(m: int, c: int, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((m, rank), (rank, c)))
    return up, down


@pytest.mark.parametrize(("m", "c", "rank"), [(12, 30, 5), (30, 12, 5), (6, 8, 20), (8, 6, 20)])
def test_factors_have_the_spectrum_of_their_product(m, c, rank):
    up, down = change(m, c, rank)
    found, expected = Spectrum.of_factors(up, down), torch.linalg.svdvals(up @ down)
    k = min(m, c, rank)
    torch.testing.assert_close(found.values[:k], expected[:k], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.mm(*found.cut(k)), up @ down, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_that_of_the_product(rank):
    up, down = change(9, 14, 5)
    spectrum = Spectrum.of_factors(up, down)
    one, two = spectrum.cut(rank)
    direct = float((one @ two - up @ down).norm() / (up @ down).norm())
    assert spectrum.error(rank) == pytest.approx(direct, abs=1e-12)
    assert one.shape == (9, rank) and two.shape == (rank, 14)


VALUES = torch.tensor([4.0, 2.0, 2.0, 1.0], dtype=torch.float64)  # squares: 16, 4, 4, 1 of 25


@pytest.mark.parametrize(
    ("cut", "rank"),
    [
        (Cut(), 4),
        (Cut(rank=3), 3),
        (Cut(rank=9), 4),
        (Cut(energy=16 / 25), 1),
        (Cut(energy=0.65), 2),
        (Cut(energy=24 / 25), 3),
        (Cut(energy=1.0), 4),
        (Cut(frobenius=0.8), 1),
        (Cut(frobenius=0.81), 2),
        (Cut(error=0.6), 1),
        (Cut(error=0.59), 2),
        (Cut(error=0.2), 3),
        (Cut(ratio=0.5), 3),
        (Cut(ratio=0.51), 1),
        (Cut(rank=2, energy=0.99), 2),
        (Cut(rank=4, energy=0.6), 1),
        (Cut(energy=0.6, ratio=0.5), 3),
    ],
    ids=str,
)
def test_the_rank_that_a_cut_asks_for(cut, rank):
    assert cut.rank_of(VALUES) == rank


def test_zeros_have_rank_one_and_no_error():
    spectrum = Spectrum.of(torch.zeros(4, 6))
    assert Cut(energy=0.9).rank_of(spectrum.values) == 1
    assert spectrum.error(1) == 0 and numerical_rank(spectrum.values) == 0 and effective_rank(spectrum.values) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_no_spectrum(value):
    change = torch.full((4, 6), value)
    for make in (
        lambda: Spectrum.of(change),
        lambda: Spectrum.of(change.T),
        lambda: Spectrum.of_factors(change[:, :1], change[:1]),
    ):
        with pytest.raises(NonFiniteTensorError, match="no singular values"):
            make()


def test_rounding_is_no_rank():
    up, down = change(40, 50, 7)
    values = torch.linalg.svdvals((up @ down).float())
    assert numerical_rank(values, 50) == 7 == int(torch.linalg.matrix_rank((up @ down).float()))
    assert Cut(rank=20).rank_of(values) == 7


def test_effective_rank_is_the_exponential_of_the_entropy():
    assert effective_rank(torch.full((5,), 3.0)) == pytest.approx(5)
    assert effective_rank(torch.tensor([7.0, 0.0])) == pytest.approx(1)
    p = [16 / 25, 4 / 25, 4 / 25, 1 / 25]
    assert effective_rank(VALUES) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)))
