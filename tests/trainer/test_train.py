"""Whole runs on a tiny base: resume is exact, stops save, bad states are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import checkpoint, loop, objective, settings
from trainer.errors import DiskError, ExitCode, InputError, LockedError, NonFiniteError, StoppedError
from trainer.events import Event, Finished, Linted, Preview, Saved, Started, Step, Warned
from trainer.run import RunDir
from trainer.train import resume, train


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def run(inputs: tuple[Path, Path], output: Path, listener=lambda event: None, **changes) -> Path:  # noqa: ANN001
    return train(settings.parse(tiny.values(*inputs, output, **changes), "test"), listener=listener)


def digest(run_dir: Path) -> str:
    """sha256 of the exported tensors, without the metadata."""
    tensors = load_file(run_dir / "tiny.safetensors")
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode() + tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def stop_after(step: int, run_dir: Path):  # noqa: ANN201
    """A listener that asks for a stop by the run's ``stop`` file."""

    def listen(event: Event) -> None:
        if isinstance(event, Step) and event.step == step:
            (run_dir / "stop").touch()

    return listen


FULL = {
    "adapter__dropout": 0.1,
    "adapter__rank_dropout": 0.2,
    "adapter__module_dropout": 0.1,
    "train__ema": 0.9,
    "train__accumulation": 2,
    "data__caption_dropout": 0.3,
    "data__flip": True,
    "data__color_jitter": [0.1, 0.1, 0.1, 0.02],
    "data__shuffle_tags": True,
    "data__tag_dropout": 0.2,
    "optimizer__warmup": 2,
    "loss__min_snr_gamma": 5.0,
    "loss__noise_offset": 0.1,
    "loss__pyramid_iterations": 3,
    "loss__input_perturbation": 0.1,
    "loss__timesteps": "high_noise",
    "loss__prior_preservation": 0.5,
}
"""Everything that draws random numbers or holds a state."""


PROCEDURES = {
    "adalora": {"adapter__prune_from": 0.1, "adapter__prune_until": 0.7, "adapter__prune_every": 1},
    "sora": {"adapter__sparsity": 20.0},
    "dylora": {"adapter__mode": "frozen", "adapter__search": "training", "adapter__search_tolerance": 0.5},
    "tlora": {"adapter__basis": "weight"},
    "sora from the weight": {"adapter__algorithm": "sora", "adapter__start": "pissa", "adapter__rank": 2},
    "stacked": {"adapter__algorithm": "lora", "adapter__start": "pissa", "relora__every": 2, "relora__warmup": 1},
    "merged": {
        "adapter__algorithm": "lora",
        "relora__every": 2,
        "relora__warmup": 1,
        "relora__keep": "merge",
        "loss__prior_preservation": 0.5,
    },
}
"""What keeps something between the steps, so that it acts before the stop and after."""
PAIRS = [(algorithm, name) for algorithm in ("lora", "loha", "lokr") for name in ("adamw", "prodigy")]
PAIRS += [("glora", "adamw")]
OTHERS = [("lora", "adamw8bit"), ("lora", "schedule_free"), ("lora", "galore")]
"""State of another kind, weights that are trained apart from those given out, whole weights in a projected space."""


@pytest.mark.parametrize(("algorithm", "optimizer"), [*PAIRS, *OTHERS])
def test_a_stopped_and_resumed_run_gives_the_same_bits(inputs, tmp_path, algorithm, optimizer):
    changes = FULL | {"adapter__algorithm": algorithm, "optimizer__name": optimizer, "adapter__weight_decompose": True}
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    if optimizer == "galore":
        whole_ones = [{"match": "attn1", "algorithm": "full"}]
        changes |= {"optimizer__name": "adamw", "optimizer__galore_rank": 2, "optimizer__galore_interval": 4}
        changes |= {"adapter__rules": whole_ones, "adapter__weight_decompose": False, "optimizer__lora_plus_ratio": 4.0}
    if optimizer == "schedule_free":
        changes |= {"optimizer__schedule": "constant", "train__ema": 0.0}
    whole = run(inputs, tmp_path / "whole", **changes)
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError) as stopped:
        run(inputs, tmp_path / "cut", stop_after(3, cut), **changes)
    assert stopped.value.code == ExitCode.INTERRUPTED
    assert (cut / "tiny-000003.safetensors").is_file()
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)
    losses = [[e["loss"] for e in RunDir(path).events() if e["event"] == "Step"] for path in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.parametrize("algorithm", PROCEDURES)
def test_a_procedure_goes_on_as_if_it_had_never_stopped(inputs, tmp_path, algorithm):
    """Where it holds a state, with the run's estimate, whose steps must leave no trace either."""
    changes = {"adapter__algorithm": algorithm, "adapter__rank": 4, "adapter__layers": "attention", "adapter__dropout": 0.1}
    changes |= {"train__accumulation": 2, "adapter__module_dropout": 0.1, "checkpoint__every": 0} | PROCEDURES[algorithm]
    whole = run(inputs, tmp_path / "whole", **changes)
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError):
        run(
            inputs, tmp_path / "cut", stop_after(3, cut), **changes, device__estimate=algorithm not in ("sora", "dylora", "tlora")
        )
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)
    losses = [[e["loss"] for e in RunDir(path).events() if e["event"] == "Step"] for path in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


NO_RANKS = {"adapter__rank_dropout": 0.0}
FROZEN = {
    "lora-fa": {"adapter__freeze_down": True},
    "pissa": {"adapter__start": "pissa", "adapter__rank": 2} | NO_RANKS,
    "vera": {"adapter__algorithm": "vera", "adapter__rank": 4, "adapter__alpha": None},
    "tied": {"adapter__algorithm": "tied", "adapter__alpha": None},
    "tied, frozen": {"adapter__algorithm": "tied", "adapter__alpha": None, "adapter__freeze_down": True, "adapter__tie": "up"},
    "glora, residual": {"adapter__algorithm": "glora", "adapter__start": "residual", "adapter__rank": 2} | NO_RANKS,
    "loha, residual": {"adapter__algorithm": "loha", "adapter__start": "residual"} | NO_RANKS,
}
"""What holds numbers that do not train."""


@pytest.mark.parametrize("options", FROZEN.values(), ids=FROZEN)
def test_a_run_with_frozen_factors_resumes_with_the_same_bits(inputs, tmp_path, options):
    changes = FULL | {"adapter__weight_decompose": True} | options
    whole = run(inputs, tmp_path / "whole", **changes)
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError):
        run(inputs, tmp_path / "cut", stop_after(3, cut), **changes)
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)


@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free"])
def test_previews_and_checkpoints_do_not_change_training(inputs, tmp_path, optimizer):
    changes = {"adapter__dropout": 0.2, "optimizer__name": optimizer, "optimizer__schedule": "constant"}
    plain = run(inputs, tmp_path / "plain", **changes, checkpoint__every=0)
    busy = run(inputs, tmp_path / "busy", **changes, checkpoint__every=1, checkpoint__export=True, preview__every=1)
    assert digest(plain) == digest(busy)
    assert len(list((busy / "previews").glob("*.png"))) == 7


def test_training_moves_every_tensor_and_keeps_the_base(inputs, tmp_path):
    events: list[Event] = []
    run(inputs, tmp_path, events.append, adapter__algorithm="loha")
    assert not [event for event in events if isinstance(event, Warned)]
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].lr == pytest.approx(1e-2) and steps[-1].lr < steps[0].lr
    assert isinstance(events[-1], Finished) and events[-1].reason == "done"


def test_a_tensor_without_gradient_is_named(inputs, tmp_path):
    events: list[Event] = []
    run(inputs, tmp_path, events.append, adapter__module_dropout=0.999)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any("got no gradient" in message and "unet." in message for message in warned)


def test_the_plan_counts_what_is_trained(inputs, tmp_path):
    events: list[Event] = []
    made = RunDir(run(inputs, tmp_path, events.append))
    plan = next(event for event in events if isinstance(event, Started)).plan
    rows = [json.loads(line) for line in made.pictures_file.read_text(encoding="utf-8").splitlines()]
    assert [(row["picture"], row["caption_file"]) for row in rows] == [(f"{i}.png", f"{i}.txt") for i in range(4)]
    saved = load_file(tmp_path / "tiny" / "tiny.safetensors")
    parameters = sum(t.numel() for name, t in saved.items() if not name.endswith("alpha"))
    assert sum(part["parameters"] for part in plan["trained"]) == parameters
    assert {part["component"] for part in plan["trained"]} == {"unet", "text_encoder"}
    assert plan["pictures"] == 4 and plan["captions"] == {".txt": 4} and plan["dropped"] == 0
    assert plan["epochs"] == 3.0 and plan["checkpoints"] == 3
    assert [part["strength"] for part in plan["trained"]] == [pytest.approx(1e-2 * 0.5**0.5)] * 2


def test_the_plan_says_what_has_no_effect_and_what_the_file_cannot_hold(inputs, tmp_path):
    def notes(**changes) -> str:  # noqa: ANN003
        events: list[Event] = []
        values = tiny.values(*inputs, tmp_path / "out", **changes)
        train(settings.parse(values, "test"), listener=events.append, dry_run=True)
        return " ".join(next(event for event in events if isinstance(event, Started)).plan["notes"])

    said = notes(adapter__algorithm="lokr", adapter__rank=4, adapter__factor=8)
    assert "lokr on " in said and "alpha has no effect" in said and "diffusers" in said
    assert "alpha" not in notes()
    with pytest.raises(InputError, match="full-matrix LoKr"):
        notes(adapter__algorithm="lokr", adapter__rank=4, adapter__factor=8, export__format="lora")
    assert not (tmp_path / "out").exists()


@pytest.mark.acts("data.lint", "device.estimate", "run.name", "run.output")
def test_what_is_turned_off_is_not_done_and_the_run_lies_where_it_is_asked_for(inputs, tmp_path):
    for on in (True, False):
        events: list[Event] = []
        path = run(inputs, tmp_path / "there", events.append, data__lint=on, device__estimate=on, train__steps=1)
        assert path == tmp_path / "there" / ("tiny" if on else "tiny-2")
        assert any(isinstance(event, Linted) for event in events) == RunDir(path).findings_file.exists() == on
        plan = next(event for event in events if isinstance(event, Started)).plan
        assert (plan["estimate"] is not None) == on


@pytest.mark.acts("preview.every", "preview.strength", "preview.prompts", "preview.height", "data.trigger")
def test_previews_come_when_asked_for_with_the_adapters_at_their_strength(inputs, tmp_path):
    """At strength 0 they are the base's, whatever was learnt."""
    size = {"preview__width": 64, "preview__height": 96, "train__steps": 4}
    prompts = {"preview__prompts": ["{trigger}, fox", "cat"], "preview__every": 2, **size}
    shown = {}
    for strength in (0.0, 2.0):
        folder = run(inputs, tmp_path / f"{strength}", preview__strength=strength, **prompts) / "previews"
        shown[strength] = {file.stem: file.read_bytes() for file in folder.iterdir()}
        assert sorted(shown[strength]) == [f"{step:06d}-{i:02d}" for step in (0, 2, 4) for i in (0, 1)]
        assert Image.open(folder / "000002-00.png").size == (64, 96)
    for name in ("000002-00", "000004-01"):
        assert shown[0.0][name] == shown[0.0][f"000000{name[-3:]}"] == shown[2.0][f"000000{name[-3:]}"]
        assert shown[2.0][name] != shown[0.0][name]
    plain = run(inputs, tmp_path / "plain", preview__prompts=["my style, fox", "cat"], **size) / "previews" / "000000-00.png"
    assert plain.read_bytes() == shown[0.0]["000000-00"], "the trigger stands in its place"


def test_pictures_and_a_save_come_when_they_are_asked_for_and_change_nothing(inputs, tmp_path):
    heard = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Step) and event.step == 2:
            for what in ("sample", "save"):
                RunDir(tmp_path / "asked" / "tiny").request(what)

    asked = run(inputs, tmp_path / "asked", listen, preview__every=0, checkpoint__every=0)
    plain = run(inputs, tmp_path / "plain", preview__every=0, checkpoint__every=0)
    pictures = {event.step for event in heard if isinstance(event, Preview)}
    saved = {(event.step, event.kind) for event in heard if isinstance(event, Saved)}
    assert 3 in pictures or 2 in pictures
    assert {kind for step, kind in saved if step in (2, 3)} == {"checkpoint", "export"}
    assert not RunDir(asked).requests() and digest(asked) == digest(plain)


def test_dry_run_writes_nothing(inputs, tmp_path):
    events: list[Event] = []
    train(settings.parse(tiny.values(*inputs, tmp_path / "out"), "test"), listener=events.append, dry_run=True)
    assert [type(event) for event in events] == [Linted, Started]
    assert not (tmp_path / "out").exists()


def test_resume_refuses_changed_settings_and_pictures(inputs, tmp_path):
    base, pictures = inputs
    mine = shutil.copytree(pictures, tmp_path / "pictures")
    done = run((base, mine), tmp_path / "out")
    config = done / "config.toml"
    before = config.read_text()
    config.write_text(before.replace("lr = 0.01", "lr = 0.02"))
    with pytest.raises(InputError, match="optimizer.lr"):
        resume(done, listener=lambda event: None)
    config.write_text(before)
    (mine / "0.txt").write_text("my style, another")
    with pytest.raises(InputError, match="pictures or captions"):
        resume(done, listener=lambda event: None)


def test_a_second_process_in_the_same_folder_is_refused(inputs, tmp_path):
    done = run(inputs, tmp_path)
    held = RunDir(done)
    held.lock()
    try:
        with pytest.raises(LockedError):
            resume(done, listener=lambda event: None)
    finally:
        held.unlock()


@pytest.mark.parametrize("value", [False, True])
def test_a_checkpoint_older_than_a_setting_was_made_with_its_default(inputs, tmp_path, value):
    """The run goes on with it; another value is a change as ever."""
    done = run(inputs, tmp_path, device__channels_last=value)
    held, _ = checkpoint.load_newest(done / "checkpoints")
    del held.values["settings"]["device"]["channels_last"]
    checkpoint.save(done / "checkpoints", held, keep=1)
    if value:
        with pytest.raises(InputError, match=r"differs from the checkpoint in device\.channels_last\n"):
            resume(done, listener=lambda event: None)
    else:
        assert resume(done, listener=lambda event: None) == done


def test_an_existing_run_is_never_overwritten(inputs, tmp_path):
    assert [run(inputs, tmp_path, train__steps=1).name for _ in range(2)] == ["tiny", "tiny-2"]


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


def test_gradient_checkpointing_computes_the_same(inputs, tmp_path):
    plain: list[Event] = []
    saving: list[Event] = []
    run(inputs, tmp_path / "plain", plain.append)
    run(inputs, tmp_path / "saving", saving.append, train__gradient_checkpointing=True)
    assert losses(saving) == pytest.approx(losses(plain), rel=1e-4)
    assert losses(plain)[0] != losses(plain)[-1]


@pytest.mark.acts("train.precision")
def test_bf16_trains_close_to_fp32_and_keeps_the_adapters_fp32(inputs, tmp_path):
    full: list[Event] = []
    half: list[Event] = []
    run(inputs, tmp_path / "full", full.append)
    path = run(inputs, tmp_path / "half", half.append, train__precision="bf16", export__dtype="fp32")
    assert losses(half) == pytest.approx(losses(full), rel=0.03)
    assert losses(half) != losses(full)
    saved = load_file(path / "checkpoints" / "step-000006" / "tensors.safetensors")
    assert {t.dtype for name, t in saved.items() if name.startswith("adapter/")} == {torch.float32}


@pytest.mark.acts("train.text_encoder")
def test_cached_captions_give_the_same_losses_as_encoding_in_the_loop(inputs, tmp_path):
    """With a text-encoder rate so small that nothing moves, the two ways must agree."""
    cached: list[Event] = []
    live: list[Event] = []
    run(inputs, tmp_path / "cached", cached.append, train__text_encoder=False)
    run(inputs, tmp_path / "live", live.append, optimizer__text_encoder_lr=1e-30)
    assert losses(cached) == pytest.approx(losses(live), rel=1e-4)
    parts = next(event for event in cached if isinstance(event, Started)).plan["trained"]
    assert [part["component"] for part in parts] == ["unet"]


def test_captions_that_change_are_encoded_in_the_loop_where_the_text_encoder_rests(inputs, tmp_path):
    """Shuffling tags changes the losses, needs no trained text encoder, and is said; without it the texts are cached."""
    plain: list[Event] = []
    moved: list[Event] = []
    run(inputs, tmp_path / "plain", plain.append, train__text_encoder=False, data__caption_dropout=0.0)
    tags = {"data__shuffle_tags": True, "data__trigger": "cat", "data__caption_dropout": 0.0}
    path = run(inputs, tmp_path / "moved", moved.append, train__text_encoder=False, **tags)
    assert losses(plain) != losses(moved)
    assert list((tmp_path / "plain" / "tiny" / "cache").glob("text-*")) and not list((path / "cache").glob("text-*"))
    said = " ".join(next(event for event in moved if isinstance(event, Started)).plan["notes"])
    assert "stays on the device" in said


@pytest.mark.acts("train.unet")
def test_text_encoder_alone(inputs, tmp_path):
    path = run(inputs, tmp_path, train__unet=False)
    assert {name.partition("_text_model")[0] for name in load_file(path / "tiny.safetensors")} == {"lora_te"}


def test_first_loss_is_the_closed_form(inputs, tmp_path):
    """Step 1 has the base's own loss: recomputed from the pictures with diffusers' parts, weights and all."""
    events: list[Event] = []
    captured: list[tuple[torch.Tensor, ...]] = []
    original = objective.pointwise

    def spy(kind: str, prediction: torch.Tensor, target: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        captured.append((prediction.detach().clone(), target.clone()))
        return original(kind, prediction, target, delta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "pointwise", spy)
        run(inputs, tmp_path, events.append, train__accumulation=3, train__steps=1, data__repeats=1)
    per_picture = torch.cat([((p - t) ** 2).flatten(1).mean(1) for p, t in captured])
    assert len(captured) == 3
    assert losses(events)[0] == pytest.approx(per_picture.mean().item(), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(inputs, tmp_path):
    real = loop.losses

    def poisoned(session, batch):  # noqa: ANN001, ANN202
        found = real(session, batch)
        return found * float("nan") if session.step == 4 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "losses", poisoned)
        with pytest.raises(NonFiniteError, match="step 5") as failed:
            run(inputs, tmp_path, checkpoint__every=1)
    assert failed.value.code == ExitCode.NON_FINITE and "optimizer.lr" in failed.value.fix
    folder = tmp_path / "tiny"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000003", "step-000004"]
    assert not list(folder.glob("*.safetensors"))
    state = load_file(folder / "checkpoints" / "step-000004" / "tensors.safetensors")
    assert all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point())


def test_other_threads_are_told(inputs, tmp_path, monkeypatch):
    done = run(inputs, tmp_path)
    events: list[Event] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    resume(done, listener=events.append)
    assert any("threads 1 then, 2 now" in event.message for event in events if isinstance(event, Warned))


def checkpoints_of(path: Path) -> list[int]:
    return [event["step"] for event in RunDir(path).events() if event["event"] == "Saved" and event["kind"] == "checkpoint"]


@pytest.mark.acts("checkpoint.every_epochs", "checkpoint.keep", "checkpoint.keep_exports")
def test_checkpoints_by_epochs_and_the_newest_exports(inputs, tmp_path):
    """Four pictures in batches of two: an epoch is two steps."""
    changes = {"checkpoint__every": 0, "checkpoint__every_epochs": 1, "checkpoint__keep": 3}
    path = run(inputs, tmp_path, **changes, checkpoint__export=True, checkpoint__keep_exports=1, train__steps=8)
    assert checkpoints_of(path) == [2, 4, 6, 8]
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == ["step-000004", "step-000006", "step-000008"]
    assert sorted(file.name for file in path.glob("*.safetensors")) == ["tiny-000006.safetensors", "tiny.safetensors"]


@pytest.mark.acts("checkpoint.every", "checkpoint.export")
def test_checkpoints_by_steps_and_all_exports(inputs, tmp_path):
    changes = {"checkpoint__every": 2, "checkpoint__every_epochs": 3, "train__accumulation": 2}
    path = run(inputs, tmp_path, **changes, checkpoint__export=True)
    assert checkpoints_of(path) == [2, 3, 4, 6]
    assert len(list(path.glob("tiny-*.safetensors"))) == 3


@pytest.mark.acts("train.init_from")
def test_a_run_starts_from_a_file_and_its_average_too(inputs, tmp_path):
    """With a rate so small that nothing moves, the file comes out as it went in; resumed, the file is not asked for again."""
    first = run(inputs, tmp_path / "first", export__dtype="fp32", adapter__algorithm="loha")
    start = shutil.copy(first / "tiny.safetensors", tmp_path / "start.safetensors")
    changes = {"train__init_from": str(start), "export__dtype": "fp32", "adapter__algorithm": "loha", "optimizer__lr": 1e-30}
    for name, ema in (("plain", 0.0), ("average", 0.9)):
        again = run(inputs, tmp_path / name, **changes, train__ema=ema)
        before, after = (load_file(path / "tiny.safetensors") for path in (first, again))
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            torch.testing.assert_close(after[key], tensor, rtol=1e-5, atol=1e-7)
    Path(start).unlink()
    resume(again, listener=lambda event: None)
    with pytest.raises(InputError, match="train.init_from.*cannot be read"):
        run(inputs, tmp_path / "none", **changes)


def test_steps_by_the_number_of_pictures_are_said_and_made(inputs, tmp_path):
    events: list[Event] = []
    changes = {"train__steps": 0, "train__steps_per_picture": 1, "train__steps_min": 1}
    path = run(inputs, tmp_path, events.append, **changes)
    plan = next(event for event in events if isinstance(event, Started)).plan
    assert plan["steps"] == 4 == max(event.step for event in events if isinstance(event, Step))
    assert any("1 x 4 pictures" in note for note in plan["notes"])
    assert settings.load(path / "config.toml").train.steps == 0
    resume(path, listener=lambda event: None)


def test_a_run_whose_folder_is_emptied_ends_and_puts_nothing_into_it(inputs, tmp_path):
    left: list[Path] = []

    def emptied(event: Event) -> None:
        if isinstance(event, Step):
            for file in sorted((tmp_path / "tiny").rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            left.append(tmp_path / "tiny")

    with pytest.raises(DiskError, match="tiny was deleted or moved while the run went on\n.*start the run again"):
        run(inputs, tmp_path, emptied)
    assert left == [tmp_path / "tiny"] and not list(left[0].iterdir())


def test_a_run_whose_folder_is_taken_away_says_so(inputs, tmp_path):
    def taken(event: Event) -> None:
        if isinstance(event, Step):
            shutil.rmtree(tmp_path / "tiny")

    with pytest.raises(DiskError, match="tiny was deleted or moved while the run went on\n.*start the run again"):
        run(inputs, tmp_path, taken)
    assert not (tmp_path / "tiny").exists()
