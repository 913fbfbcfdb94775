"""What a user is told of an error: of an expected one its own words, of any other that it is a fault of the program."""

from __future__ import annotations

import errno
import logging

from filelock import Timeout

from app.desk import Refused
from app.text import say
from trainer.errors import DiskError, TrainerError

log = logging.getLogger(__name__)


def words(error: Exception) -> str:
    """The text, not yet escaped. An unexpected error goes into the server's log with its traceback."""
    if isinstance(error, Refused | TrainerError):
        return str(error)
    if isinstance(error, Timeout):
        return say("error.locked", file=error.lock_file)
    if isinstance(error, FileNotFoundError):
        return say("error.gone", file=error.filename)
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return str(DiskError.of(error, error.filename or say("error.a_file")))
    log.error("not expected", exc_info=error)
    return say("error.unexpected", kind=type(error).__name__)
