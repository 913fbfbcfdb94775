"""The package's own error classes. Each message says what is wrong, where, and what to do."""


class MoreLoraError(Exception):
    """Base of every error raised on purpose."""


class AdapterError(MoreLoraError, ValueError):
    """A layer, option or rule that cannot work as asked."""


class FormatError(MoreLoraError, ValueError):
    """A file that cannot be read, or cannot be written as asked."""
