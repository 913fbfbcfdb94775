"""Differences of base models, made from known changes."""

import pytest
import torch

from morelora import FormatError
from morelora.factors import kron
from morelora.files.checkpoint import Checkpoint
from morelora.files.extract import Extraction, extract, nearest_kronecker
from morelora.files.opened import change_of, open_adapter
from morelora.files.writing import Output
from morelora.lowrank import Cut
from tests.morelora.files.conftest import close

LAYERS = ["unet.mid_block.resnets.0.conv1", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "unet.conv_in"]
LAYERS += ["text_encoder.text_model.encoder.layers.0.self_attn.q_proj"]


def change(name: str, shape: torch.Size, rank: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(name))
    m, c = shape[0], shape[1:].numel()
    return (torch.randn(m, rank, generator=generator) @ torch.randn(rank, c, generator=generator)).view(shape) / 10


@pytest.fixture
def pair(tmp_path, bases):
    """A base and what became of it: changes of rank 3, one of them where no adapter stands, and a bias."""
    base = Checkpoint.open(bases("sd2", "file"))
    path = tmp_path / "tuned.safetensors"
    base.write(path, lambda name, w, b: (w + change(name, w.shape), b + 0.01 if b is not None else None), LAYERS, {})
    return base, Checkpoint.open(path)


def test_a_difference_of_low_rank_comes_back_whole(tmp_path, pair):
    report = extract(*pair, Output(tmp_path / "x.safetensors", "webui", torch.float32), Extraction(Cut(error=1e-3)))
    opened = open_adapter(report.path).whole()
    held = {name for name in LAYERS if name != "unet.conv_in"}
    assert opened.adapters.layers.keys() == held and report.ranks == {3: 3} and report.error < 1e-4
    assert opened.family == "sd2"
    for name, layer in opened.adapters.layers.items():
        assert close(change_of(layer), pair[1].weight(name) - pair[0].weight(name), 1e-4)
    left = next(line for line in report.lines() if line.startswith("Left out"))
    assert "4 tensors" in left  # the input layer, its bias, and two biases


@pytest.mark.parametrize(("cut", "rank"), [(Cut(1), 1), (Cut(2), 2), (Cut(ratio=1.0), 1)])
def test_a_cut_keeps_the_nearest(tmp_path, pair, cut, rank):
    report = extract(*pair, Output(tmp_path / "x.safetensors", "webui", torch.float32), Extraction(cut))
    assert report.ranks == {rank: 3}
    for name, error in report.errors.items():
        values = torch.linalg.svdvals((pair[1].weight(name) - pair[0].weight(name)).flatten(1))
        assert error == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-4)


def test_lokr_of_a_difference_is_measured(tmp_path, pair):
    full = extract(*pair, Output(tmp_path / "a.safetensors", "webui", torch.float32), Extraction(Cut(), "lokr", 4))
    thin = extract(*pair, Output(tmp_path / "b.safetensors", "webui", torch.float32), Extraction(Cut(1), "lokr", 4))
    for name in full.errors:
        assert 0 < full.errors[name] <= thin.errors[name] < 1
    assert {adapter.name for _, adapter in open_adapter(thin.path).adapters} == {"lokr"}


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_kronecker_product_is_its_own_nearest(kernel):
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    block = torch.randn(4, 5, *kernel, generator=generator, dtype=torch.float64)
    whole = torch.einsum("pq,rs...->prqs...", small, block).reshape(16, 10, *kernel)
    found = nearest_kronecker(whole, 4, Cut())
    again = kron(found["lokr_w1"], found["lokr_w2"].flatten(1)).view(whole.shape)
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-10)


def test_noise_never_beats_the_nearest_kronecker_product():
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(12, 10, generator=generator, dtype=torch.float64)
    found = nearest_kronecker(whole, 4, Cut())
    least = (kron(found["lokr_w1"], found["lokr_w2"]) - whole).norm()
    for _ in range(50):
        moved = {key: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) for key, tensor in found.items()}
        assert (kron(moved["lokr_w1"], moved["lokr_w2"]) - whole).norm() > least


def test_equal_and_different_models_are_refused(tmp_path, bases, pair):
    output = Output(tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="do not differ in any of"):
        extract(pair[0], pair[0], output, Extraction(Cut(2)))
    with pytest.raises(FormatError, match="is sd2 and .* is sdxl"):
        extract(pair[0], Checkpoint.open(bases("sdxl", "file")), output, Extraction(Cut(2)))
