"""What went wrong, in words and an exit code: any exception becomes one ``TrainerError``."""

from __future__ import annotations

import errno
import tempfile
import traceback
from pathlib import Path

import torch

from morelora import MoreLoraError
from trainer.errors import DiskError, ExitCode, InputError, OutOfMemoryError, StoppedError, TrainerError
from trainer.run import RunDir

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
LESS_MEMORY = (
    "set train.gradient_checkpointing = true, lower train.batch_size or data.resolution, or hold the base in fewer bits "
    "(model.dtype, device.quantize); --dry-run estimates each"
)
NO_SUCH_FORM = "does not have a deterministic implementation"
"""What PyTorch says of an operation that ``device.deterministic`` rules out."""
RESUME = "checkpoints that were written are whole; --resume goes on from the newest"


def explain(error: BaseException, run: Path | None) -> TrainerError:
    """The error as one that can be shown; the traceback of an unexpected one is kept in a file that its message names.

    Args:
        run: the run folder, where there is one.
    """
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, MoreLoraError):
        return InputError(str(error), "mend the setting or the file it names; docs/settings.md lists every setting")
    if _is_out_of_memory(error):
        return OutOfMemoryError("the memory is too small for this run", LESS_MEMORY, run and RESUME or "")
    if NO_SUCH_FORM in str(error):
        what = f"device.deterministic = true: PyTorch has no such form of what this run computes: {_one_line(error)}"
        return InputError(what, "set device.deterministic = false, or leave out what needs that operation", run and RESUME or "")
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return DiskError.of(error, error.filename or run or "a file", run and RESUME or "")
    if isinstance(error, KeyboardInterrupt):
        fix = "start again, or go on with --resume where a checkpoint had been written"
        return StoppedError("stopped at once; nothing was saved after the last checkpoint", fix, ExitCode.INTERRUPTED)
    log = keep_traceback(error, run)
    what = f"unexpected {type(error).__name__}: {_one_line(error)}"
    return TrainerError(what, f"this is a fault of the program; please report it with {log}", run and RESUME or "")


def keep_traceback(error: BaseException, run: Path | None) -> Path:
    """Append the traceback to the run's log, or to a file in the temporary folder where there is no run or no room in it."""
    text = "".join(traceback.format_exception(error))
    spare = Path(tempfile.gettempdir()) / "morelora-error.log"
    log = RunDir(run).log_file if run else spare
    try:
        _append(log, text)
    except OSError:
        log = spare
        _append(log, text)
    return log


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."
