"""Files that are whole or absent: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path`` and rename it over ``path`` once it is on disk.

    Mode bits follow the umask (safetensors alone would leave 0600). Any failure leaves ``path`` as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.name[:80]}-")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """``write_file`` for text, UTF-8."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8") and None)


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
