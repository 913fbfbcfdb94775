"""Test settings: one torch thread a process, no network, no telemetry."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)

# Machines are shared, so the time of one example says nothing; the same examples each time, so that red means red.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
