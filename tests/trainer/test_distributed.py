"""Two processes give the adapter of one at the same global batch, also after a resume; launched as users launch them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import settings, train
from trainer.errors import InputError
from trainer.run import RunDir
from trainer.team import Team, check_launch

LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no")
LAUNCH += ("--dynamo_backend", "no", "--main_process_port", "0", "--num_processes", "2", "-m", "trainer")
OPTIONS = {
    "train__text_encoder": True,
    "train__ema": 0.9,
    "data__flip": True,
    "data__caption_dropout": 0.3,
    "data__shuffle_tags": True,
    "data__crop": "random",
    "data__crops": 2,
    "data__crop_keep": 0.6,
    "adapter__dropout": 0.1,
    "adapter__rank_dropout": 0.2,
    "adapter__module_dropout": 0.1,
    "loss__noise_offset": 0.1,
    "loss__min_snr_gamma": 5.0,
    "loss__prior_preservation": 0.5,
    "validation__count": 3,
    "validation__every": 3,
    "embedding__vectors": 2,
    "embedding__freeze_after": 0.5,
    "checkpoint__every": 3,
    "export__dtype": "fp32",
}
"""Everything random, and pictures that make batches of two and of one."""


def launch(*arguments: str) -> None:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *LAUNCH, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def files(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of the adapter and of the word."""
    return load_file(run / "tiny.safetensors") | load_file(run / "tiny-embedding.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def validated(run: Path) -> list[float]:
    return [event["loss"] for event in RunDir(run).events() if event["event"] == "Validated"]


@pytest.mark.slow
def test_two_processes_give_the_adapter_of_one_and_resume_to_the_same_bits(tmp_path):
    base, pictures = tiny.save_base(tmp_path / "base"), tiny.save_pictures(tmp_path / "pictures", 6, side=96)
    alone = tiny.values(base, pictures, tmp_path / "alone", train__accumulation=2, **OPTIONS)
    expected = files(train.train(settings.parse(alone, "test"), listener=lambda event: None))

    both = settings.parse(tiny.values(base, pictures, tmp_path / "both", **OPTIONS), "test")
    (tmp_path / "both.toml").write_text(settings.to_toml(both))
    launch("--preset", str(tmp_path / "both.toml"))
    run = tmp_path / "both" / "tiny"
    whole = files(run)
    assert distance(whole, expected) < 1e-5
    assert validated(run) == pytest.approx(validated(tmp_path / "alone" / "tiny"), rel=1e-5) and len(validated(run)) == 3
    moved = max(tensor.abs().max().item() for name, tensor in whole.items() if name.endswith("up.weight"))
    assert moved > 1e-2, "nothing was trained"

    shutil.rmtree(run / "checkpoints" / "step-000006")
    for file in run.glob("tiny*.safetensors"):
        file.unlink()
    launch("--resume", str(run))
    assert distance(files(run), whole) == 0


def test_a_team_of_one_agrees_with_itself_and_owns_everything():
    team = Team()
    assert team.any(True) is True and team.any(False) is False
    assert all(team.owns(number) for number in range(5))
    assert [Team(1, 3).owns(number) for number in range(6)] == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("kind", "steps", "words"),
    [
        (DistributedType.MEGATRON_LM, 1, ["Megatron-LM", "--multi_gpu", "docs/distributed.md"]),
        (DistributedType.FSDP, 1, ["FSDP", "--multi_gpu"]),
        (DistributedType.MULTI_GPU, 4, ["4 micro steps", "train.accumulation"]),
    ],
)
def test_a_launch_that_would_be_ignored_is_refused(kind, steps, words):
    with pytest.raises(InputError) as caught:
        check_launch(SimpleNamespace(distributed_type=kind, gradient_accumulation_steps=steps))
    assert all(word in str(caught.value) for word in words)


def test_plain_data_parallelism_passes():
    for kind in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        assert check_launch(SimpleNamespace(distributed_type=kind, gradient_accumulation_steps=1)) is None


@pytest.mark.parametrize(
    ("name", "kind", "processes", "machines"),
    [("two-gpus", "MULTI_GPU", 2, 1), ("two-machines", "MULTI_GPU", 8, 2), ("two-gpus-zero2", "DEEPSPEED", 2, 1)],
)
def test_accelerate_reads_the_shipped_configurations(name, kind, processes, machines):
    file = Path(__file__).parents[2] / "docs" / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(file))
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type, config.num_processes, config.num_machines) == (kind, processes, machines)
    assert config.mixed_precision == "no" and not config.use_cpu
    assert (config.deepspeed_config or {}).get("zero_stage") == (2 if kind == "DEEPSPEED" else None)
    assert file.name in (file.parents[1] / "distributed.md").read_text(encoding="utf-8")
