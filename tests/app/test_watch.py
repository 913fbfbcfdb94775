"""A run folder as a page shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app import watch
from trainer.events import Event, Failed, Finished, Preview, Started, Step, Verified
from trainer.run import RunDir

ROOT = Path(__file__).resolve().parents[2]
PLAN = {"steps": 100, "trained": [], "pictures": 4}


def run_with(folder: Path, *events: Event) -> RunDir:
    run = RunDir(folder)
    for event in events:
        run.emit(event)
    return run


def steps(*numbers: int, rate: float = 2.0) -> list[Step]:
    return [Step(number, 1.0 / number, 1e-3, 1.0, rate) for number in numbers]


def test_an_empty_folder_is_starting(tmp_path):
    assert watch.look(RunDir(tmp_path), []).state == "starting"


def test_a_run_that_has_lost_its_first_events_is_told_by_its_steps(tmp_path):
    run = run_with(tmp_path, *steps(7, 8))
    assert watch.state_of(run.events(), held=True)[0] == "running"
    view = watch.look(run, run.events())
    assert (view.state, view.step, view.loss) == ("interrupted", 8, 0.125)


def test_a_running_run_is_told_by_its_lock(tmp_path):
    run = run_with(tmp_path, Started(PLAN, 0), *steps(1, 2))
    assert watch.look(run, run.events()).state == "interrupted"
    code = "import sys; from pathlib import Path; from trainer.run import RunDir; run = RunDir(Path(sys.argv[1])); run.lock(); "
    code += "print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        view = watch.look(run, run.events())
        holder.communicate()
    assert (view.state, view.step, view.steps, view.loss) == ("running", 2, 100, 0.5)
    assert view.seconds_left == 49.0
    assert watch.look(run, run.events()).state == "interrupted", "the lock is free again"


@pytest.mark.parametrize(
    ("last", "state", "message"),
    [
        ([Finished(100, "a.safetensors")], "done", ""),
        ([Finished(50, "a.safetensors", "stopped")], "stopped", ""),
        ([Failed(4, "no memory")], "failed", "no memory"),
        ([Failed(4, "no memory"), Started(PLAN, 0), Finished(100, "a.safetensors")], "done", ""),
        ([Finished(50, "a", "stopped"), Started(PLAN, 50)], "interrupted", "--resume"),
    ],
)
def test_the_last_deciding_event_decides(tmp_path, last, state, message):
    run = run_with(tmp_path, Started(PLAN, 0), *last, *steps(1))
    view = watch.look(run, run.events())
    assert view.state == state and message in view.message


def test_result_and_newest_pictures_are_shown_when_they_exist(tmp_path):
    (tmp_path / "previews").mkdir()
    for name in ("previews/a.png", "previews/b.png", "before_after.png", "x.safetensors"):
        (tmp_path / name).touch()
    events = [Started(PLAN, 0), Preview(0, ["previews/a.png"]), Preview(50, ["previews/b.png", "previews/gone.png"])]
    run = run_with(tmp_path, *events, Verified("diffusers", 151, 3e-4, "the same change"), Finished(100, "x.safetensors"))
    view = watch.look(run, run.events())
    assert (view.preview_step, view.previews) == (50, (tmp_path / "previews/b.png",))
    assert (view.file, view.before_after) == (tmp_path / "x.safetensors", tmp_path / "before_after.png")
    assert view.checks == ("diffusers: the same change",)


def test_a_file_outside_the_run_is_not_shown(tmp_path):
    (tmp_path / "secret.png").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link.png").symlink_to(tmp_path / "secret.png")
    run = run_with(tmp_path / "run", Started(PLAN, 0), Preview(0, ["../secret.png", "/etc/passwd", "link.png"]))
    assert watch.look(run, run.events()).previews == ()


def test_a_torn_last_line_is_left_out(tmp_path):
    run = run_with(tmp_path, Started(PLAN, 0), *steps(1, 2))
    with run.events_file.open("a", encoding="utf-8") as stream:
        stream.write('{"event": "Step", "step": 3, "lo')
    assert watch.look(run, run.events()).step == 2


def test_smooth_gives_means_of_neighbours_and_few_points():
    assert watch.smooth([(1, 4.0), (2, 2.0)]) == [(1, 4.0), (2, 2.0)]
    assert watch.smooth([(i, float(i)) for i in range(1, 21)]) == [(5, 3.0), (10, 8.0), (15, 13.0), (20, 18.0)]
    assert len(watch.smooth([(i, 0.0) for i in range(100_000)])) <= watch.MOST_POINTS
