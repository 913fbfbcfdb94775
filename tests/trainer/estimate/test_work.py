"""The work of a step in the cost model's unit, against closed forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morelora.cost import BALANCE
from trainer.estimate.work import ATTENTION, work_of

META = torch.device("meta")
ROWS, N, M = 10, 6, 4
PRODUCT = 2 * ROWS * N * M + BALANCE * (ROWS * N + N * M + ROWS * M)
"""Operations of ``x @ w.T``, and the numbers that it reads and writes; the gradient of ``x`` takes as many."""


def make(*shape: int, trains: bool = False) -> Tensor:
    return torch.empty(shape, device=META, requires_grad=trains)


def test_a_product_counts_its_operations_and_what_it_reads_and_writes():
    layer, x = nn.Linear(N, M, bias=False, device=META).requires_grad_(False), make(ROWS, N)
    assert work_of(lambda: layer(x)) == PRODUCT


def test_the_backward_pass_counts_too():
    layer, x = nn.Linear(N, M, bias=False, device=META).requires_grad_(False), make(ROWS, N, trains=True)
    gradient = BALANCE * 2 * ROWS * M  # of the result, made beside it
    assert work_of(lambda: layer(x)) == 2 * PRODUCT + gradient


def test_views_cost_nothing_and_sums_what_they_touch():
    x, y = make(ROWS, N), make(ROWS, N)
    assert work_of(lambda: x.view(N, ROWS).transpose(0, 1)) == 0
    assert work_of(lambda: x + y) == BALANCE * 3 * ROWS * N


def test_attention_takes_no_table_of_positions():
    q, k, v = (make(1, 2, length, 8) for length in (50, 70, 70))
    own = F.scaled_dot_product_attention
    work = work_of(lambda: F.scaled_dot_product_attention(q, k, v))
    assert work == ATTENTION * q.numel() * 70 + BALANCE * 2 * q.numel()
    assert F.scaled_dot_product_attention is own
