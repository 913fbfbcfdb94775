"""How often each timestep is drawn. Plain arithmetic without torch, so that the browser's page can draw the curve.

A timestep's place ``s`` in ``0 .. 1`` lies between the lowest and the highest timestep that are trained. With ``u`` uniform:

* ``uniform``: ``s = u``;
* ``logit_normal``: ``s = sigmoid(mean + std z)``, ``z`` standard normal (arXiv 2403.03206);
* ``high_noise``: ``s = 1 - u^3`` and ``low_noise``: ``s = u^3`` (cubic sampling, arXiv 2302.08453): half of the draws fall into
  an eighth of the range. ai-toolkit calls the first ``content`` and the second ``style``.

The loss is not weighed back by ``1 / density``: timesteps that are drawn more often count more, which is the purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Distribution = Literal["uniform", "logit_normal", "high_noise", "low_noise"]
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Density:
    """A distribution over the timesteps ``first .. last``, both included. ``mean`` and ``std`` shape ``logit_normal`` alone."""

    kind: Distribution = "uniform"
    first: int = 0
    last: int = 999
    mean: float = 0.0
    std: float = 1.0

    def __len__(self) -> int:
        """Timesteps that can be drawn."""
        return self.last - self.first + 1

    def timestep(self, u: float) -> int:
        """The timestep below which a share ``u`` in ``0 .. 1`` of all draws lies."""
        return self.first + min(int(self._place(u) * len(self)), len(self) - 1)

    def probabilities(self, total: int = 1000) -> list[float]:
        """The probability of each timestep ``0 .. total - 1``; they sum to 1, and are 0 outside ``first .. last``."""
        edges = [self._share(i / len(self)) for i in range(len(self) + 1)]
        inside = [high - low for low, high in zip(edges, edges[1:], strict=False)]
        return [0.0] * self.first + inside + [0.0] * (total - 1 - self.last)

    def sparkline(self, total: int = 1000, width: int = 20) -> str:
        """The probabilities as a line of block characters, least noise first."""
        p = self.probabilities(total)
        bars = [sum(p[total * i // width : total * (i + 1) // width]) for i in range(width)]
        return "".join(BLOCKS[round(bar / max(bars) * (len(BLOCKS) - 1))] for bar in bars)

    def _place(self, u: float) -> float:
        """The place ``s`` below which a share ``u`` of the draws lies: the inverse of ``_share``."""
        if self.kind == "logit_normal":
            return 0.0 if u <= 0 else 1.0 if u >= 1 else 1 / (1 + math.exp(-NormalDist(self.mean, self.std).inv_cdf(u)))
        return {"uniform": u, "high_noise": 1 - (1 - u) ** 3, "low_noise": u**3}[self.kind]

    def _share(self, s: float) -> float:
        """The share of draws below place ``s``."""
        if self.kind == "logit_normal":
            return s if s in (0.0, 1.0) else NormalDist(self.mean, self.std).cdf(math.log(s / (1 - s)))
        return {"uniform": s, "high_noise": 1 - math.cbrt(1 - s), "low_noise": math.cbrt(s)}[self.kind]
