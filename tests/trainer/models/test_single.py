"""One checkpoint in the original layout: the same model as its folder, and as diffusers' own conversion gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from tests.trainer import miniatures
from trainer.config import ModelConfig
from trainer.models import Bundle, load

CAPTIONS = ["a photo of a cat", ""]


@pytest.fixture(scope="module", params=miniatures.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(places: dict[tuple[str, str], Path], family: str) -> tuple[Bundle, Bundle]:
    """The folder's bundle and the file's."""
    return tuple(load(ModelConfig(base=str(places[family, form]))) for form in ("folder", "file"))


def test_family_and_objective_are_told(pair, family):
    for bundle in pair:
        assert bundle.family == family
        assert bundle.schedule.objective == ("v_prediction" if family == "sd2" else "epsilon")
        assert bundle.source.pixel_factor == 8


def test_the_file_gives_the_folders_model_bit_for_bit(pair):
    folder, file = pair
    for name in folder.source.parts:
        one, other = (getattr(bundle.pipeline, name).state_dict() for bundle in pair)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    one, other = (states if isinstance(states, tuple) else (states,) for states in (b.encode_text(CAPTIONS) for b in pair))
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
    torch.testing.assert_close(folder.schedule.alphas_cumprod, file.schedule.alphas_cumprod, rtol=0, atol=0)


def test_diffusers_reads_the_same_tensors_from_the_file(places, pair, family):
    """An oracle that shares no code with our loader; its rule for the unused last layer of SD 2 knows only layer 23."""
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    theirs = kind.from_single_file(
        str(places[family, "file"]), config=str(places[family, "folder"]), local_files_only=True
    ).components
    ours = pair[1].pipeline.components
    for name in pair[1].source.parts:
        expected = theirs[name].state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in ours[name].state_dict().items()), name
