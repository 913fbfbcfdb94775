"""The run folder: who holds it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer import run
from trainer.errors import LockedError
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
