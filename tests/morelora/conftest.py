"""The forms that a change is applied in, each in turn, whatever the shapes would choose."""

from __future__ import annotations

import pytest

from morelora import cost
from morelora.site import Site


@pytest.fixture(params=["branch", "sum", "dense"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with this one; where the change has no such form it is skipped."""

    def choose(work: cost.Work, site: Site, rows: int, can_add: bool = True, can_sum: bool = True) -> str:
        if request.param not in cost.forms(work, can_add and can_sum):
            pytest.skip(f"no form {request.param!r}")
        return request.param

    monkeypatch.setattr(cost, "choose", choose)
    monkeypatch.setattr(cost, "prefers_turned_weight", lambda *given: request.param == "dense")
    return request.param
