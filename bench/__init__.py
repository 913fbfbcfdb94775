"""Numbers, not verdicts: speed, memory, style. Each module runs as ``python -m bench.NAME``; dated figures stand in LOG.md."""
