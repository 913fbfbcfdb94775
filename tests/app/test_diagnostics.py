"""Diagnostics hold what helps and no private path, whatever form it is written in."""

from __future__ import annotations

import getpass
import socket

import pytest

from app import diagnostics
from app.diagnostics import report, without_private
from app.watch import View
from trainer.presets import ROOT
from trainer.run import RunDir


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open /home/anna/secret/fox.png: gone", "cannot open <path>.png: gone"),
        ("Error:/home/anna/x", "Error:<path>"),
        ("'/home/anna/my secret pictures/fox.png' does not exist", "'<path>.png' does not exist"),
        ('base = "C:\\\\Users\\\\Anna Secret\\\\sd.safetensors"', 'base = "<path>.safetensors"'),
        (r"C:\Users\anna\sd.ckpt and D:/models/sd", "<path>.ckpt and <path>"),
        (r"\\server\anna\x.png", "<path>.png"),
        ("~/secret/x and --out=/home/anna (see /tmp/anna/a.log)", "<path> and --out=<path> (see <path>.log)"),
        ("file:///home/anna/x.png //etc/anna", "<path>.png <path>"),
        ('  File "/usr/lib/python3/site-packages/torch/nn/a.py", line 3', '  File "<packages>/torch/nn/a.py", line 3'),
        (f'  File "{ROOT}/trainer/loop.py", line 3', '  File "<program>/trainer/loop.py", line 3'),
        ("loss 0.5 / 2, 3/4, steps/s, https://example.org/docs/a, runs/one/x.png", None),
    ],
)
def test_paths_from_a_root_are_replaced_and_nothing_else(text, shown):
    assert without_private(text) == (text if shown is None else shown)


def test_names_of_user_and_machine_are_replaced(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    monkeypatch.setattr(socket, "gethostname", lambda: "annas-pc")
    assert without_private("Anna on annas-pc, not savannah") == "<user> on <machine>, not savannah"
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(socket, "gethostname", lambda: "x")
    assert without_private("the root x") == "the root x"


def test_a_report_has_versions_state_recipe_and_log(tmp_path):
    run = RunDir(tmp_path / "anna's run")
    run.path.mkdir()
    folder = "/data/Anna Secret/fox pictures"
    run.config_file.write_text(f'[data]\nimages = "{folder}"\n[optimizer]\nlr = 0.001\n')
    log = f"reading {folder}/one fox.png failed\n{run.path}/cache is full\n/mnt/other/place.txt"
    text = report(run, View("failed", message=f"no room in {folder}", step=3, steps=9, plan={"device": "cpu"}), log)
    assert "failed, step 3 of 9, on cpu\nno room in <data.images>" in text and "lr = 0.001" in text
    assert "reading <data.images>/one fox.png failed\n<run>/cache is full\n<path>.txt" in text
    assert "MoreLoRA 0" in text and "torch 2" in text and "Python 3" in text
    assert not any(word in text for word in ("Secret", str(tmp_path), str(ROOT), "/mnt"))


def test_a_job_that_never_had_a_folder_is_reported_too(monkeypatch):
    monkeypatch.setattr(diagnostics, "PACKAGES", ("no-such-package",))
    text = report(None, View("none"), "Error: the base '/home/anna/sd' does not exist")
    assert "no-such-package missing" in text and "'<path>' does not exist" in text and "## Recipe" not in text
