"""The run folder: who holds it."""

from __future__ import annotations

import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer import run
from trainer.errors import LockedError
from trainer.events import Warned
from trainer.run import RunDir


def test_a_page_that_asks_whether_a_folder_is_held_keeps_nobody_out(tmp_path):
    """``is_held`` takes the lock for an instant, and another process starts its run in that instant."""
    watcher, starter = RunDir(tmp_path), RunDir(tmp_path)
    watcher.lock()
    with ThreadPoolExecutor(1) as other:
        waits = other.submit(starter.lock)
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.1)
        watcher.unlock()
        waits.result()
        assert watcher.is_held()
        other.submit(starter.unlock).result()
    assert not watcher.is_held()


def test_a_held_folder_is_refused_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PATIENCE", 0.1)
    holder = RunDir(tmp_path)
    holder.lock()
    with pytest.raises(LockedError, match="another process is working"):
        RunDir(tmp_path).lock()
    holder.unlock()


def test_an_event_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """On a disk that takes the first half of a line and then is full."""
    run = RunDir(tmp_path)
    run.emit(Warned("first"))
    before = run.events_file.read_bytes()
    room = [5]

    class Full(io.FileIO):
        def write(self, data):
            size = min(room[0], len(data))
            if not size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room[0] -= size
            return super().write(bytes(data)[:size])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode, **more: Full(self, mode))
        with pytest.raises(OSError, match="No space left"):
            run.emit(Warned("second"))
    assert run.events_file.read_bytes() == before
    run.emit(Warned("third"))
    assert [event["message"] for event in run.events()] == ["first", "third"]
