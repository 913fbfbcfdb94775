"""Subspaces with known angles, and amplification written out."""

import math

import pytest
import torch

from morelora.analysis.subspaces import amplification, grassmann_distance, principal_angles, similarities, similarity
from morelora.lowrank import Spectrum


def spanned(*rows: list[float]) -> Spectrum:
    """A change with these right singular vectors, in falling weight."""
    right = torch.tensor(rows, dtype=torch.float64)
    return Spectrum(torch.eye(len(rows), dtype=torch.float64), torch.arange(len(rows), 0, -1).double(), right)


E = torch.eye(6, dtype=torch.float64).tolist()


def turned(angle: float) -> list[float]:
    return [math.cos(angle), 0, 0, math.sin(angle), 0, 0]


def test_equal_and_orthogonal_subspaces():
    one = spanned(E[0], E[1])
    assert similarity(one, spanned(E[1], E[0]), 2, 2) == 1
    assert similarity(one, spanned(E[2], E[3]), 2, 2) == 0
    assert grassmann_distance(one, spanned(E[1], E[0]), 2) == pytest.approx(0, abs=1e-12)
    assert grassmann_distance(one, spanned(E[2], E[3]), 2) == pytest.approx(math.pi / 2 * math.sqrt(2))
    assert similarity(one, spanned(E[0], E[4], E[1]), 1, 3) == 1
    assert similarity(one, spanned(E[4], E[5], E[0]), 2, 3) == 0.5


@pytest.mark.parametrize("angle", [1e-9, 0.3, 1.2, math.pi / 2])
def test_a_known_angle_comes_back(angle):
    one, two = spanned(E[0], E[1]), spanned(turned(angle), E[1])
    assert principal_angles(one, two, 2).tolist() == pytest.approx([angle, 0], abs=1e-12)
    assert grassmann_distance(one, two, 2) == pytest.approx(angle)
    assert similarity(one, two, 2, 2) == pytest.approx((math.cos(angle) ** 2 + 1) / 2)


def test_random_subspaces_share_what_chance_gives():
    generator = torch.Generator().manual_seed(0)
    draws = [torch.linalg.qr(torch.randn(200, 8, generator=generator, dtype=torch.float64))[0].T for _ in range(20)]
    made = [Spectrum(torch.eye(8), torch.ones(8), right) for right in draws]
    shared = [similarity(a, b, 8, 8) for a, b in zip(made[::2], made[1::2], strict=True)]
    assert sum(shared) / len(shared) == pytest.approx(8 / 200, rel=0.2)


def test_the_table_has_every_pair():
    generator = torch.Generator().manual_seed(1)
    a, b = (Spectrum.of(torch.randn(9, 12, generator=generator, dtype=torch.float64)) for _ in range(2))
    table = similarities(a, b, 5, 7)
    assert table.shape == (5, 7) and float(table.min()) >= 0 and float(table.max()) <= 1 + 1e-12
    for i in range(1, 6):
        for j in range(1, 8):
            assert float(table[i - 1, j - 1]) == pytest.approx(similarity(a, b, i, j))


def test_amplification_is_the_papers_ratio():
    generator = torch.Generator().manual_seed(2)
    change, weight = (torch.randn(8, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
    expected = change.norm() / (u.T @ weight.flatten(1) @ v.T).norm()
    assert amplification(Spectrum.of(change), weight) == pytest.approx(float(expected))
    assert amplification(Spectrum.of(weight), weight) == pytest.approx(1)
    assert amplification(Spectrum.of(5 * weight), weight, 2) == pytest.approx(5)
