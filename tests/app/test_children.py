"""A run is the trainer's own process, in a session of its own, with its words in a file."""

from __future__ import annotations

import os
import time

from app import children


def test_the_trainer_is_started_in_its_own_session(tmp_path):
    log = tmp_path / "logs" / "one.log"
    child = children.start(["--preset", "../nothing; echo x"], log)
    assert child.lives() and os.getsid(child.pid) == child.pid, "a Ctrl-C at the server must not end the run"
    for _ in range(600):
        if not child.lives():
            break
        time.sleep(0.1)
    assert "there is no preset '../nothing; echo x'" in log.read_text() and "Traceback" not in log.read_text()
