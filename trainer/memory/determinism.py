"""``device.deterministic``: kernels that add in the same order every time, so that a resumed run has the same bits on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.config import DeviceConfig
from trainer.errors import InputError

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
"""The sizes of cuBLAS's workspace with which its sums are the same every time; it reads the variable when CUDA starts."""


@contextmanager
def deterministic(config: DeviceConfig) -> Iterator[None]:
    """Inside, PyTorch, cuDNN, cuBLAS and the compiler are deterministic where that is asked for; afterwards as before.

    An operation that has no deterministic form raises PyTorch's error instead of giving other bits each time.

    Raises:
        InputError: this process has started CUDA already, with another workspace.
    """
    if not config.deterministic:
        yield
        return
    cudnn, inductor, workspace = torch.backends.cudnn, torch._inductor.config, os.environ.get(VARIABLE)
    _refuse_late(workspace)
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark, inductor.deterministic
    try:
        if workspace not in WORKSPACES:
            os.environ[VARIABLE] = WORKSPACES[0]
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark, inductor.deterministic = True, False, True
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, inductor.deterministic = flags
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        _put_back(workspace)


def notes(config: DeviceConfig, device: torch.device) -> list[str]:
    """What a run should know whose resuming would not be exact."""
    if config.deterministic or device.type == "cpu":
        return []
    return [
        "on this device a run that is stopped and resumed ends almost, but not bit for bit, as one that went through: "
        "its kernels add in another order each time. device.deterministic = true makes it exact, at some speed"
    ]


def _refuse_late(workspace: str | None) -> None:
    if torch.cuda.is_initialized() and workspace not in WORKSPACES:
        raise InputError(
            "device.deterministic = true comes too late: this process has started CUDA already",
            f"set the environment variable {VARIABLE}={WORKSPACES[0]} before the program starts",
        )


def _put_back(workspace: str | None) -> None:
    if workspace is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = workspace
