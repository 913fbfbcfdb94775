"""Questions to the process beside the server: answers, refusals, and a process that dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.desk import Desk, Refused, start
from trainer import presets


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    desk = Desk()
    yield desk
    desk.close()
    os.chdir(before)


def test_a_recipe_is_judged_elsewhere(desk):
    good = desk.ask("check", presets.load("pocket-lora"))
    assert good["problem"] == "" and 'trigger = "duo style"' in good["toml"] and good["whole"]["adapter"]["rank"] == 8
    bad = desk.ask("check", {"train": {"steps": -3}})
    assert "train.steps = -3" in bad["problem"]


def test_a_relative_folder_starts_where_a_run_reads_it(desk, tmp_path):
    found = desk.ask("album", {"data": {"images": "assets/styles/duotone/train"}}, str(tmp_path))
    assert {Path(picture["file"]).parent for picture in found["pictures"]} == {Path("assets/styles/duotone/train")}
    with pytest.raises(Refused, match=f"a relative one starts at {presets.ROOT}"):
        desk.ask("album", {"data": {"images": "nowhere"}}, str(tmp_path))


def test_what_is_refused_comes_with_its_reason(desk):
    with pytest.raises(Refused, match="there is no preset 'nothing'"):
        desk.ask("preset", "nothing")


def test_a_process_that_died_is_started_again(desk):
    desk.ask("schema")
    for process in list(desk._pool._processes.values()):
        process.kill()
        process.join()
    assert desk.ask("preset", "pocket-lora") == presets.load("pocket-lora")


def test_a_process_that_was_started_before_is_the_one_that_answers():
    process = start("settle")
    desk = Desk(process=process)
    assert desk.ask("preset", "pocket-lora") == presets.load("pocket-lora")
    assert desk._pool is process and len(process._processes) == 1
    desk.close()
