"""``python -m bench.algorithms``: docs/algorithms.md, a section on every algorithm of the registry, and its plots."""
