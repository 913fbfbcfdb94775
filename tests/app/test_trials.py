"""Trials: one at a time, what each folder tells, cancelling, and a server that starts again in the middle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.desk import Refused
from app.trials import Trials
from tests.app.serving import wait_for
from tests.app.test_queue import Starter
from trainer import settings
from trainer.trial import TrialDir

VALUES = {"preview": {"prompts": ["<b>fox"], "seed": 3}, "adapters": [{"file": "/a/b.safetensors", "strength": 0.5}]}


@pytest.fixture
def starter():
    starter = Starter()
    yield starter
    starter.end()


def dump(question: str, values: dict) -> str:
    assert question == "check_trial"
    return settings.dump(values)


@pytest.fixture
def trials(tmp_path: Path, starter: Starter) -> Trials:
    return Trials(tmp_path / "trials", dump, starter)


def tell(trials: Trials, name: str, **state: object) -> TrialDir:
    trial = TrialDir(trials.folder / name)
    trial.state_file.write_text(json.dumps(state))
    return trial


def test_a_trial_is_a_folder_that_a_child_draws(trials, starter):
    name = trials.add(VALUES)
    file = trials.folder / name / "trial.toml"
    assert starter.words == [["--try", str(file)]] and trials.names() == [name] == [trials.drawing()]
    tell(trials, name, stage="base", step=2, steps=9).base.touch()
    found = trials.look(name)
    assert (found.state, found.stage, found.step, found.steps, found.prompt) == ("drawing", "base", 2, 9, "<b>fox")
    assert found.adapters == (("/a/b.safetensors", 0.5),) and found.base and not found.adapted
    tell(trials, name, stage="done").adapted.touch()
    assert trials.look(name).state == "done" and trials.look(name).adapted


def test_one_is_drawn_at_a_time_and_a_new_server_knows_of_it(trials, starter):
    first = trials.add(VALUES)
    again = Trials(trials.folder, dump, starter)
    assert again.drawing() == first and again.look(first).state == "drawing"
    with pytest.raises(Refused, match="already"):
        again.add(VALUES)
    assert again.names() == [first]
    starter.end()
    second = again.add(VALUES)
    assert trials.names() == [second, first] and int(second) == int(first) + 1


def test_a_cancelled_one_ends_and_says_so(trials, starter):
    trials.cancel()
    name = trials.add(VALUES)
    trials.cancel()
    wait_for(lambda: starter.processes[0].poll() is not None, seconds=20)
    assert trials.look(name).state == "cancelled" and trials.drawing() == ""


def test_a_failed_one_shows_the_last_words(trials, starter):
    name = trials.add(VALUES)
    starter.end()
    (trials.folder / name / "log.txt").write_text("Error: there is <no> room\nWhat to do: free some\n")
    found = trials.look(name)
    assert (found.state, found.message) == ("failed", "Error: there is <no> room\nWhat to do: free some")


def test_what_is_refused_leaves_nothing(tmp_path, starter):
    def refuse(*given: object) -> None:
        raise Refused("no such model")

    trials = Trials(tmp_path / "trials", refuse, starter)
    with pytest.raises(Refused, match="no such model"):
        trials.add(VALUES)
    assert trials.names() == [] and not starter.words and trials.look("000001") is None


@pytest.mark.parametrize("name", ["..", "../runs", "/etc", "", None, "1/..", "away"])
def test_only_trials_can_be_asked_for(trials, name):
    trials.add(VALUES)
    (trials.folder / "away").mkdir()
    assert trials.look(name) is None


def test_a_torn_recipe_is_shown_as_far_as_it_goes(trials, starter):
    name = trials.add(VALUES)
    for text in ("[preview", "preview = 3\nadapters = 4\n", '[preview]\nprompts = 5\n[[adapters]]\nfile = "x"\n'):
        (trials.folder / name / "trial.toml").write_text(text)
        found = trials.look(name)
        assert found.adapters == () and found.prompt == ""
