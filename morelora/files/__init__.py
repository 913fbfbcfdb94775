"""Work on files alone: adapters are read, written and measured without a model being built; see ``python -m morelora --help``."""
