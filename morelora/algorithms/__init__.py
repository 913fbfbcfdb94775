"""One file an algorithm; the docstring is its formula, start, parameter count, cost, export and source."""
