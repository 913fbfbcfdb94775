"""A run is the trainer's own process, in a session of its own, with its words in a file."""

from __future__ import annotations

import os

from app import children
from app.children import Child
from tests.app.serving import wait_for


def test_the_trainer_is_started_in_its_own_session(tmp_path):
    log = tmp_path / "logs" / "one.log"
    child = children.start(["--preset", "../nothing; echo x"], log)
    assert child.lives() and os.getsid(child.pid) == child.pid, "a Ctrl-C at the server must not end the run"
    wait_for(lambda: not child.lives())
    assert "there is no preset '../nothing; echo x'" in log.read_text() and "Traceback" not in log.read_text()


def test_a_child_is_ended_and_no_other_process_that_got_its_number(tmp_path):
    child = children.start(["--doctor"], tmp_path / "log")
    Child(child.pid, child.born - 1).kill()
    assert child.lives()
    child.kill()
    wait_for(lambda: not child.lives(), seconds=20)
    child.kill()
