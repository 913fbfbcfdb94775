"""The package's own error classes. Each message says what is wrong, where, and what to do."""


class MoreLoraError(Exception):
    """Base of every error raised on purpose."""


class AdapterError(MoreLoraError, ValueError):
    """A layer, option or rule that cannot work as asked."""


class FormatError(MoreLoraError, ValueError):
    """A file that cannot be read, or cannot be written as asked."""


class NonFiniteTensorError(FormatError):
    """A tensor that is to be written is NaN or infinite, or too large for the file's precision."""


class UnreadTensorsWarning(UserWarning):
    """Part of a file could not be used; ``unread`` lists all of it."""

    def __init__(self, message: str, unread: list[str]) -> None:
        super().__init__(message)
        self.unread = unread
