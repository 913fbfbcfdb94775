"""The server's temporary folder: for its user alone, removed when the server ends, or by the next one where it was killed.

The owner holds a lock in it for as long as it lives: that ends with the process, however it ends, and holds between containers.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "morelora-"
OWNER = "owner.lock"
PARTS = ("empty", "served", "logs")
YOUNG_SECONDS = 60.0
"""A folder may lack its lock for a moment after it was made."""


def private_folder() -> Path:
    """A folder that only this user can read, with ``PARTS`` in it."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = FileLock(folder / OWNER)
    lock.acquire()
    for name in PARTS:
        (folder / name).mkdir()
    atexit.register(_end, folder, lock)
    return folder


def sweep() -> None:
    """Remove the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if _may_be_left(folder):
                with FileLock(folder / OWNER).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            continue


def _may_be_left(folder: Path) -> bool:
    """Whether it is a server's folder of this user, no link, and not new."""
    found, lock = folder.lstat(), folder / OWNER
    is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    is_real = not folder.is_symlink() and lock.is_file() and not lock.is_symlink()
    return is_mine and is_real and time.time() - found.st_mtime > YOUNG_SECONDS


def _end(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
