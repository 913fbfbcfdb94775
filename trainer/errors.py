"""Errors with an exit code. Each message says what is wrong, where, and what to do; none shows a traceback to a user."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process ends with."""

    DONE = 0
    BUG = 1
    INPUT = 2
    FAULTS = 3
    OUT_OF_MEMORY = 4
    NON_FINITE = 5
    DISK = 6
    LOCKED = 7
    INTERRUPTED = 130
    TERMINATED = 143


class TrainerError(Exception):
    """An expected failure. ``safe`` says what is kept, ``fix`` what to do."""

    code = ExitCode.BUG

    def __init__(self, what: str, fix: str = "", safe: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.safe = what, fix, safe

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.safe, self.fix and f"What to do: {self.fix}") if line)


class InputError(TrainerError):
    """Settings or data given by the user are at fault."""

    code = ExitCode.INPUT


class OutOfMemoryError(TrainerError):
    """The device or the machine has too little memory."""

    code = ExitCode.OUT_OF_MEMORY


class NonFiniteError(TrainerError):
    """The loss or a gradient is NaN or infinite."""

    code = ExitCode.NON_FINITE


class DiskError(TrainerError):
    """A file cannot be written."""

    code = ExitCode.DISK

    @classmethod
    def of(cls, error: OSError, what: object, safe: str = "") -> DiskError:
        """What the system said of ``what``, with advice for the cause; ``safe`` is for a run that ``--resume`` goes on with."""
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "free some space" if is_full else "check the disk and the rights of the folder, or choose another one"
        resume = ", then go on with --resume" if safe else ""
        return cls(f"{what} cannot be written: {error.strerror or error}", fix + resume, safe)


class LockedError(TrainerError):
    """Another process works in the same run folder."""

    code = ExitCode.LOCKED


class StoppedError(TrainerError):
    """Stopped on request after everything was saved; ``--resume`` goes on."""

    def __init__(self, what: str, fix: str, code: ExitCode) -> None:
        super().__init__(what, fix)
        self.code = code
