"""Runs launched with DeepSpeed: ZeRO-1 and ZeRO-2 give the adapter of one process, and what does not fit is refused before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.utils import DeepSpeedPlugin
from safetensors.torch import load_file

from tests.trainer import tiny
from tests.trainer.test_distributed import OPTIONS, distance
from tests.trainer.test_distributed import launch as launch_plainly
from trainer import settings, train
from trainer.config import Config
from trainer.errors import InputError
from trainer.procedures import build_procedures
from trainer.run import RunDir
from trainer.session import build_accelerator
from trainer.zero import Zero, check_zero

LAUNCH = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes", "2", "--mixed_precision", "no")
LAUNCH += ("--dynamo_backend", "no", "--main_process_port", "0")
ALL = {name: value for name, value in OPTIONS.items() if not name.startswith("embedding")}
REWRITTEN = {"adapter__algorithm": "sora", "adapter__max_norm": 0.02, "optimizer__name": "lion", "device__estimate": True}
REWRITTEN |= {"checkpoint__every": 3, "export__dtype": "fp32"}
"""The gates and the norms are set by something else than the optimiser, and steps are measured before the run."""


def launch(*arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *LAUNCH, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def norms(run: Path) -> list[float]:
    return [event["grad_norm"] for event in RunDir(run).events() if event["event"] == "Step"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize(("stage", "options"), [("1", ALL | {"optimizer__clip_norm": 0.05}), ("2", ALL), ("2", REWRITTEN)])
def test_two_processes_give_the_adapter_of_one_and_resume_to_the_same_bits(stage, options, tmp_path):
    base, pictures = tiny.save_base(tmp_path / "base"), tiny.save_pictures(tmp_path / "pictures", 6, side=96)
    alone = tiny.values(base, pictures, tmp_path / "alone", train__accumulation=2, **options)
    expected = train.train(settings.parse(alone, "test"), listener=lambda event: None)

    both = settings.parse(tiny.values(base, pictures, tmp_path / "both", **options), "test")
    (tmp_path / "both.toml").write_text(settings.to_toml(both))
    zero = ("--use_deepspeed", "--zero_stage", stage, "-m", "trainer")
    launch(*zero, "--preset", str(tmp_path / "both.toml"))
    run = tmp_path / "both" / "tiny"
    whole = load_file(run / "tiny.safetensors")
    assert distance(whole, load_file(expected / "tiny.safetensors")) < 1e-5
    assert norms(run) == pytest.approx(norms(expected), rel=1e-4) and len(norms(run)) == 6
    assert max(tensor.abs().max().item() for name, tensor in whole.items() if name.endswith("up.weight")) > 1e-3

    shutil.rmtree(run / "checkpoints" / "step-000006")
    (run / "tiny.safetensors").unlink()
    shutil.copytree(run, tmp_path / "plain")
    launch(*zero, "--resume", str(run))
    assert distance(load_file(run / "tiny.safetensors"), whole) == 0
    launch_plainly("--resume", str(tmp_path / "plain"))
    assert distance(load_file(tmp_path / "plain" / "tiny.safetensors"), whole) < 1e-5


def plugin(stage: int = 2, **more) -> DeepSpeedPlugin:
    """As accelerate makes it of a configuration and of the precision that it is given here."""
    made = DeepSpeedPlugin(hf_ds_config={"zero_optimization": {"stage": stage}} | more)
    made.set_mixed_precision("no")
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (plugin(0), ["ZeRO-0", "zero_stage to 1 or 2"]),
        (plugin(3), ["ZeRO-3 splits the weights", "zero_stage to 1 or 2", "--multi_gpu"]),
        (plugin(gradient_accumulation_steps=4), ["4 micro steps", "train.accumulation"]),
        (plugin(optimizer={"type": "AdamW"}), ["has optimizer", "optimizer.*"]),
        (plugin(scheduler={"type": "WarmupLR"}), ["has scheduler"]),
        (plugin(zero_optimization={"stage": 2, "offload_optimizer": {"device": "cpu"}}), ["offload_optimizer is 'cpu'"]),
        (plugin(bf16={"enabled": True}), ["adapters in bf16", "train.precision"]),
    ],
)
def test_a_deepspeed_configuration_that_does_not_fit_is_refused(made, words):
    with pytest.raises(InputError) as caught:
        check_zero(Config(), made)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"precision": "fp16"}}, ["fp16", "'bf16'"]),
        ({"optimizer": {"name": "adafactor"}}, ["'adafactor' looks at whole tensors", "'adamw' or 'lion'"]),
        ({"optimizer": {"name": "torch.optim.SGD"}}, ["torch.optim.SGD"]),
        ({"optimizer": {"name": "lion", "arguments": {"use_gc": True}}}, ["arguments of Lion"]),
        ({"adapter": {"algorithm": "full"}, "optimizer": {"galore_rank": 4}}, ["galore_rank", "remove it"]),
        ({"relora": {"every": 50}}, ["relora.every", "set relora.every = 0"]),
        ({"embedding": {"vectors": 2}, "data": {"images": "x", "trigger": "my style"}}, ["embedding.vectors"]),
    ],
)
def test_a_setting_that_zero_cannot_keep_is_refused(values, words):
    asked = settings.parse({"data": {"images": "x"}} | values, "test")
    with pytest.raises(InputError) as caught:
        check_zero(asked, plugin())
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("made", [plugin(1), plugin(2), DeepSpeedPlugin(zero_stage=1), DeepSpeedPlugin(zero_stage=2)])
def test_zero_1_and_2_pass_with_what_accelerate_fills_in(made):
    made.set_mixed_precision("no")
    assert check_zero(Config(), made) is None
    lion = settings.parse({"optimizer": {"name": "lion"}, "train": {"precision": "bf16"}, "data": {"images": "x"}}, "test")
    assert check_zero(lion, made) is None


def test_without_deepspeed_a_launch_with_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("accelerate.accelerator.is_deepspeed_available", lambda: False)
    with pytest.raises(InputError, match="DeepSpeed") as caught:
        build_accelerator(Config())
    assert "pip install deepspeed" in caught.value.fix


def test_an_algorithm_that_reads_gradients_after_the_step_is_refused(tmp_path):
    base, pictures = tiny.save_base(tmp_path / "base"), tiny.save_pictures(tmp_path / "pictures")
    session = tiny.session(base, pictures, tmp_path, adapter__algorithm="adalora")
    session.optimizer = object.__new__(Zero)
    with pytest.raises(InputError, match="adalora reads gradients"):
        build_procedures(session)
