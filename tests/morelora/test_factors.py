"""Shared algebra against its definitions."""

from __future__ import annotations

import torch
from torch import Tensor

from morelora.factors import khatri_rao, kron, product_norm, tucker_down, uniform


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_khatri_rao_turns_a_product_of_products_into_one() -> None:
    a, b, c, d = random(5, 2), random(2, 7), random(5, 3), random(3, 7)
    product = khatri_rao(a.T, c.T).T @ khatri_rao(b, d)
    torch.testing.assert_close(product, (a @ b) * (c @ d), rtol=1e-12, atol=1e-12)


def test_kron_of_transposed_tensors() -> None:
    a, b = random(3, 2), random(4, 5)
    torch.testing.assert_close(kron(a.T, b.T), torch.kron(a, b).T, rtol=0, atol=0)


def test_tucker_core_folds_into_the_down_factor() -> None:
    mid, down, x = random(3, 2, 3, 3), random(2, 4), random(2, 4, 6, 6)
    two_steps = torch.conv2d(torch.conv2d(x, down[:, :, None, None]), mid)
    one_step = torch.conv2d(x, tucker_down(mid, down).view(3, 4, 3, 3))
    torch.testing.assert_close(one_step, two_steps, rtol=1e-12, atol=1e-12)


def test_product_norm() -> None:
    up, down = random(9, 3), random(3, 11)
    torch.testing.assert_close(product_norm(up, down), (up @ down).norm(), rtol=1e-12, atol=0)
    assert product_norm(0 * up, down) == 0


def test_uniform_is_kaiming_with_a_root_of_five() -> None:
    sample = uniform((400, 50), 50, torch.Generator().manual_seed(0))
    theirs = torch.empty(400, 50)
    torch.nn.init.kaiming_uniform_(theirs, a=5**0.5)
    bound = 50**-0.5
    assert bound * 0.999 < sample.abs().max() <= bound
    assert abs(sample.std() / theirs.std() - 1) < 0.02 and abs(sample.mean()) < 0.002
    assert torch.equal(sample, uniform((400, 50), 50, torch.Generator().manual_seed(0)))
