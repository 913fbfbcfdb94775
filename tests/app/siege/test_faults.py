"""A full disk and a taken port: said in words, nothing lost, and all goes on once there is room."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.serving import Server, wait_for
from tests.app.siege import runs
from tests.trainer import tiny
from trainer.presets import ROOT
from trainer.run import RunDir

ROOM = "24m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can only be made by root, with mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(file: Path) -> None:
    """Take all room that is left, to the last byte."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 4096, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_full_disk_is_told_and_all_goes_on_once_there_is_room(disk, tmp_path):
    tiny.save_base(tmp_path / "base")
    tiny.save_pictures(tmp_path / "pictures")
    server = Server(disk)
    try:
        queue, run = runs.queue_of(server), RunDir(server.runs / "one")
        queue.add(runs.recipe(tmp_path), "one")
        runs.trains(server, "one")
        fill(disk / "filler")
        wait_for(lambda: queue.job("one").has_ended, server.log)
        runs.shows(server, "one", "The disk is full", "free some space", but="Traceback")
        kept = runs.whole(run)

        demo = next(name for name in server.functions if name.startswith("home/button"))
        refused = server.call(demo)
        assert not refused["success"] and "No space left on device" in refused["output"]["error"]
        assert "free some space" in refused["output"]["error"] and server.is_well()
        assert not runs.press(server, "resume", "one")["success"]
        assert [job.name for job in queue.jobs()] == ["one"], "nothing is lost of the queue"

        (disk / "filler").unlink()
        assert runs.press(server, "resume", "one")["success"]
        runs.trains(server, "one")
        assert max(runs.whole(run)) > max(kept)
        runs.shows(server, "one", "Training", but="The disk is full")
    finally:
        runs.end(server)


def test_a_port_in_use_gives_the_next_one_and_says_which(tmp_path):
    log = tmp_path / "log"
    with socket.socket() as holder, log.open("wb") as stream:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        command = [sys.executable, str(ROOT / "launch.py"), "--no-venv", "--language", "en", "--port", str(port)]
        environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream)
        try:
            wait_for(lambda: "Open http" in log.read_text(), log.read_text)
        finally:
            server.kill()
            server.wait()
    found = int(log.read_text().partition("127.0.0.1:")[2].partition(" ")[0])
    assert port < found <= port + 20 and "Traceback" not in log.read_text()
