"""Temporary folders of killed servers go with the next start; none of a living one, and nothing behind a link."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app import temporary
from trainer.presets import ROOT

SERVER = "from app.temporary import private_folder; print(private_folder(), flush=True); input()"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def server(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder, which looks old."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, env=os.environ | {"TMPDIR": str(place)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    (folder / "served" / "upload.png").touch()
    age(folder)
    return process, folder


def age(folder: Path) -> None:
    os.utime(folder, (1e9, 1e9))


def test_the_folder_is_for_its_user_alone_and_goes_with_its_server(place):
    process, folder = server(place)
    assert folder.parent == place and folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(temporary.PARTS)
    process.communicate("\n")
    assert not folder.exists()


def test_a_killed_servers_folder_goes_with_the_next_start_and_a_living_ones_stays(place):
    (living, kept), (killed, left) = server(place), server(place)
    killed.kill()
    killed.wait()
    assert left.is_dir()
    temporary.sweep()
    assert not left.exists() and (kept / "served" / "upload.png").is_file()
    living.communicate("\n")


def test_links_other_folders_and_new_ones_are_left_alone(place):
    outside = place / "outside"
    for name in ("outside", "morelora-of-somebody", "morelora-new", "morelora-locked-by-link"):
        (place / name).mkdir()
    (outside / temporary.OWNER).touch()
    (outside / "photo.png").write_text("mine")
    (place / "morelora-error.log").touch()
    (place / "morelora-link").symlink_to(outside, target_is_directory=True)
    (place / "morelora-locked-by-link" / temporary.OWNER).symlink_to(outside / "photo.png")
    (place / "morelora-new" / temporary.OWNER).touch()
    for name in ("outside", "morelora-of-somebody", "morelora-locked-by-link"):
        age(place / name)
    before = sorted(place.rglob("*"))
    temporary.sweep()
    assert sorted(place.rglob("*")) == before and (outside / "photo.png").read_text() == "mine"


def test_a_link_inside_a_left_folder_takes_nothing_along(place):
    (place / "photos").mkdir()
    (place / "photos" / "a.png").touch()
    left = place / "morelora-left"
    left.mkdir()
    (left / temporary.OWNER).touch()
    (left / "served").symlink_to(place / "photos", target_is_directory=True)
    age(left)
    temporary.sweep()
    assert not left.exists() and (place / "photos" / "a.png").is_file()
