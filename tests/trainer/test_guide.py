"""The complete examples of docs/guide.md are settings that run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import settings
from trainer.events import Event, Started
from trainer.train import train

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"
EXAMPLES = [part.partition("```")[0] for part in GUIDE.read_text(encoding="utf-8").split("```toml\n")[1:]]


@pytest.mark.parametrize("text", EXAMPLES, ids=[text.splitlines()[0] for text in EXAMPLES])
def test_every_example_is_made_of_settings(text):
    settings.parse(tomllib.loads(text), "the guide")


def test_the_dreambooth_example_runs_from_end_to_end(tmp_path):
    """As it stands, but for places and sizes: the subject gets the trigger, the class does not, and both are trained on."""
    values = tomllib.loads(next(text for text in EXAMPLES if "DreamBooth" in text))
    small = tiny.values(tiny.save_base(tmp_path / "base"), Path(), tmp_path / "runs")
    subject, others = tiny.save_pictures(tmp_path / "subject", 2), tiny.save_pictures(tmp_path / "class", 4)
    for folder, caption in ((subject, "fox"), (others, "cat")):
        for file in folder.glob("*.txt"):
            file.write_text(caption)
    for source, folder in zip(values["data"]["sources"], (subject, others), strict=True):
        source["path"] = str(folder)
    values["model"], values["run"] = small["model"], small["run"]
    values["data"] |= {"resolution": 64, "bucket_step": 16}
    values["adapter"]["rank"] = 2
    values["train"]["steps"] = 3
    values["preview"] |= {"steps": 1}
    values["checkpoint"] = {"every": 0}
    events: list[Event] = []
    path = train(settings.parse(values, "the guide"), listener=events.append)
    plan = next(event for event in events if isinstance(event, Started)).plan
    assert plan["pictures"] == 6 and plan["epochs"] == pytest.approx(3 * 2 / (2 * 10 + 4), abs=0.01)
    tags = json.loads(json_of(path)["ss_tag_frequency"])
    assert tags == {"subject": {"zwx fox": 2, "fox": 2}, "class": {"cat": 4}}
    assert load_file(path / "tiny.safetensors")


def json_of(path: Path) -> dict[str, str]:
    from morelora.formats.container import read_metadata

    return read_metadata(path / "tiny.safetensors")
