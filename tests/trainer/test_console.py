"""The terminal: the statement, plain lines without a terminal, the last lines of a finished run."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path

import pytest

from trainer.console import Console, duration, step_text, strength_text
from trainer.events import Event, Failed, Finished, Formed, Preview, Saved, Started, Step, Validated, Verified, Warned
from trainer.plan import Plan, TrainedPart

PLAN = Plan(
    name="my-style", base="pocket", family="sd1", objective="velocity", device="cpu", precision="fp32",
    trained=[
        TrainedPart("unet", "loha", 127, 268000, 5e-3, 3.54e-3, (3e-5, 5e-4)),
        TrainedPart("text_encoder", "loha", 24, 41472, 1e-3),
    ],
    pictures=12, captions={".txt": 10, "file name": 2}, buckets={"64x64": 11, "72x56": 1}, dropped=0, steps=40,
    batch_size=12, epochs=40.0, checkpoints=2, notes=["alpha has no effect on two layers"],
)  # fmt: skip


def shown(*events: Event, run: Path | None = None) -> str:
    stream = io.StringIO()
    with Console(stream) as console:
        for event in events:
            console(event)
        if run:
            console.show_result(run)
    return stream.getvalue()


def row(text: str, key: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip("│ ").startswith(key)]
    return " ".join(line.strip("│ ").removeprefix(key).replace("│", "").split())


def test_the_statement_says_what_will_be_trained():
    text = shown(Started(asdict(PLAN), 0))
    assert row(text, "unet") == (
        "loha: 127 layers, 268,000 parameters, lr 0.005, effective strength 0.00354 (usual 3e-05 to 0.0005)"
    )
    assert row(text, "text_encoder") == "loha: 24 layers, 41,472 parameters, lr 0.001"
    assert row(text, "pictures") == "12, dropped 0"
    assert row(text, "captions") == "10 from .txt, 2 from file name"
    assert row(text, "buckets") == "64x64: 11, 72x56: 1"
    assert row(text, "steps") == "40 of 12 pictures = 40 epochs"
    assert row(text, "checkpoints") == "2"
    assert "Note: alpha has no effect on two layers" in text


def test_the_statement_says_that_the_text_encoder_is_not_trained():
    text = shown(Started(asdict(PLAN) | {"trained": [asdict(PLAN.trained[0])]}, 0))
    assert row(text, "text encoder") == "not trained"


def test_effective_strength_is_put_beside_the_usual_range():
    assert strength_text(3.54e-3, (3e-5, 5e-4)) == "effective strength 0.00354 (usual 3e-05 to 0.0005)"
    assert strength_text(1e-4, None) == "effective strength 0.0001"


def test_the_validation_loss_is_shown_by_timesteps():
    text = shown(Validated(0, 0.5, {"0-249": 0.75, "750-999": 0.25}), Validated(100, 0.25, {}))
    assert "Validation, base model: loss 0.5000 (t 0-249: 0.7500, t 750-999: 0.2500)" in text
    assert "Validation, step 100: loss 0.2500" in text


def test_without_a_terminal_about_twenty_plain_lines_are_written():
    steps = [Step(step, 0.5, 1e-3, 1.0, 2.0) for step in range(1, 41)]
    lines = [line for line in shown(Started(asdict(PLAN), 0), *steps).splitlines() if line.startswith("step ")]
    assert len(lines) == 20
    assert lines[-1] == "step 40/40  loss 0.5000  lr 0.001  2 steps/s  0:00:00 left"
    assert "\x1b" not in "".join(lines)


def test_a_step_says_rate_and_time_left():
    assert step_text(Step(10, 0.25, 2e-3, 1.0, 4.0), 250) == "loss 0.2500  lr 0.002  4 steps/s  0:01:00 left"
    assert step_text(Step(10, 0.25, 2e-3, 1.0, 0.25), 20) == "loss 0.2500  lr 0.002  4 s/step  0:00:40 left"
    assert step_text(Step(1, 0.25, 2e-3, 1.0, 0.0), 20) == "loss 0.2500  lr 0.002  0 steps/s"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (90000, "25:00:00")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_what_happens_in_between_is_told():
    text = shown(
        Started(asdict(PLAN), 20),
        Preview(0, ["previews/a.png"]),
        Saved(20, "checkpoint", "checkpoints/x"),
        Warned("one [bold]caption[/bold] is long"),
        Formed(20, "svd", "the form 'svd' is approximate", {"unet.x": 0.1}),
        Verified("diffusers", 151, 3.2e-4, ""),
        Verified("morelora", 151, 1e-7, "makes the same change"),
        Preview(9, ["previews/a.png", "previews/b.png", "previews/c.png"]),
        Verified("lycoris", 0, None, "does not read this form"),
    )
    assert "Going on after step 20." in text
    assert "Pictures of the base model: previews/a.png" in text
    assert "Saved at step 20: checkpoints/x (checkpoint)" in text
    assert "Note: the form 'svd' is approximate" in text
    assert "Note: one [bold]caption[/bold] is long" in text, "text of others is no markup"
    assert "Read back with diffusers: 151 layers, relative error 0.00032" in text
    assert "Read back with morelora: makes the same change\n" in text
    assert "Pictures at step 9: previews/a.png and 2 more" in text
    assert "Read back with lycoris: does not read this form" in text


def test_the_last_lines_name_sheet_and_file_and_what_to_paste(tmp_path, monkeypatch):
    (tmp_path / "before_after.png").touch()
    monkeypatch.chdir(tmp_path.parent)
    text = shown(Started(asdict(PLAN), 0), Finished(40, "my-style.safetensors"), run=Path(tmp_path.name))
    lines = text.splitlines()
    assert lines[-1] == f"Adapter file:  {tmp_path / 'my-style.safetensors'}"
    assert lines[-2] == f"Before and after:  {tmp_path / 'before_after.png'}"
    assert "<lora:my-style:1>" in text and f'morelora.load(pipe, r"{tmp_path / "my-style.safetensors"}")' in text
    assert "Done after 40 steps." in text


def test_a_dry_run_and_a_failure_show_no_result(tmp_path):
    assert "Adapter file" not in shown(Started(asdict(PLAN), 0), run=tmp_path)
    assert "boom" not in shown(Failed(1, "boom")), "the message is printed once, by whoever ends the process"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    with Console(stream) as console:
        console(Started(asdict(PLAN), 0))
        console(Step(12, 0.125, 1e-3, 1.0, 2.0))
        assert console.progress is not None
    assert "12/40" in stream.getvalue() and "loss 0.1250" in stream.getvalue()
    assert console.progress is None, "leaving puts the terminal back"
