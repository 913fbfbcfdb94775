"""The loader: every batch follows from the seed and the micro step alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.trainer.data.pictures import CountingPixels, CountingTexts, code_points, save, settings
from trainer.config import Config, DataConfig, TrainConfig
from trainer.data import Cache, Dealing, Encoded, Loader, Views, phrasing, scan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Nine pictures in three buckets, encoded: dataset, latents, texts."""
    folder = tmp_path_factory.mktemp("loader")
    for index, size in enumerate([(64, 64)] * 4 + [(100, 60)] * 3 + [(150, 200)] * 2):
        save(folder / "pictures", f"{index}.png", size, caption=f"fox {index}")
    dataset = scan(settings(folder / "pictures", flip=True))
    cache = Cache(folder / "cache")
    latents = cache.latents(Views(dataset), CountingPixels().encoder)
    return dataset, latents, cache.texts(phrasing.texts(dataset), CountingTexts().encoder)


def loader(made, dealing, with_texts=True, **changes):
    """``changes`` are settings of the folder."""
    dataset, latents, texts = made
    source = dataset.sources[0]
    folder = source.settings.model_copy(update=FOLDER | changes)
    views = Views(replace(dataset, sources=(replace(source, settings=folder),)))
    return Loader(views, Encoded(latents, None, texts if with_texts else None), dealing)


def same(one, other) -> bool:
    names = ("latents", "text_states", "weights", "masks")
    tensors = [(getattr(one, name), getattr(other, name)) for name in names]
    equal = all(a is b if a is None or b is None else torch.equal(a, b) for a, b in tensors)
    without = dict.fromkeys(names)
    return equal and replace(one, **without) == replace(other, **without)


def mirrored(batch) -> list[bool]:
    return [view.mirrored for view in batch.views]


DEALING = Dealing(seed=7, batch_size=2)
FOLDER = {"repeats": 3, "flip": True, "caption_dropout": 0.3}


def test_a_batch_is_a_function_of_the_micro_step_alone(made):
    straight, resumed = loader(made, DEALING), loader(made, DEALING)
    row = [straight.batch(k) for k in range(40)]
    for k in (39, 0, 17, 17, 5):
        assert same(resumed.batch(k), row[k])
    assert not same(row[0], loader(made, replace(DEALING, seed=8)).batch(0))


def test_two_processes_see_in_one_micro_step_what_one_sees_in_two(made):
    alone = loader(made, DEALING)
    ranks = [loader(made, replace(DEALING, world=2, rank=rank)) for rank in (0, 1)]
    for k in range(20):
        for rank in (0, 1):
            assert same(ranks[rank].batch(k), alone.batch(2 * k + rank))


@pytest.mark.acts("data.repeats")
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_an_epoch_over_all_processes_holds_every_picture_repeats_times(made, world):
    ranks = [loader(made, replace(DEALING, world=world, rank=rank)) for rank in range(world)]
    length = ranks[0].batches_per_epoch
    assert length == 6 + 5 + 3  # 12, 9 and 6 pictures in twos
    assert len(ranks[0]) == -(-length // world) and ranks[0].epochs(length) == world
    batches = [ranks[number % world].batch(number // world) for number in range(2 * length)]
    for epoch in (0, 1):
        held = [batch for batch in batches if batch.epoch == epoch]
        assert len(held) == length
        assert Counter(item for batch in held for item in batch.items) == dict.fromkeys(range(9), 3)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_pictures_of_a_step_are_counted_over_all_processes(made, world):
    ranks = [loader(made, replace(DEALING, world=world, rank=rank, batch_size=4)) for rank in range(world)]
    for step in range(10):
        held = sum(len(rank.batch(k).items) for rank in ranks for k in (2 * step, 2 * step + 1))
        assert all(rank.pictures(2 * step, 2) == held for rank in ranks)


def test_latents_are_mean_plus_std_times_normal_noise(made):
    _, latents, _ = made
    dealt = loader(made, replace(DEALING, batch_size=4))
    noise = []
    for k in range(200):
        batch = dealt.batch(k)
        mean = torch.stack([latents.get(view)[0] for view in batch.views])
        assert batch.latents.shape == mean.shape and batch.latents.dtype == torch.float32
        noise.append(((batch.latents - mean) / 0.1).flatten())
    values = torch.cat(noise)
    count = values.numel()
    assert abs(values.mean()) < 4 / count**0.5 and abs(values.var() - 1) < 4 * (2 / count) ** 0.5
    assert len({tuple(part[:3].tolist()) for part in noise}) == 200, "noise repeats"


def test_the_same_picture_gets_other_noise_each_time(made):
    dealt = loader(made, Dealing(seed=0), repeats=3)
    seen = [batch.latents for batch in map(dealt.batch, range(27)) if batch.items == [0]]
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


@pytest.mark.acts("data.flip", "data.caption_dropout")
def test_flips_and_empty_captions_come_at_their_rates(made):
    dealt = loader(made, DEALING)
    batches = [dealt.batch(k) for k in range(1000)]
    flips = [flip for batch in batches for flip in mirrored(batch)]
    empty = [caption == "" for batch in batches for caption in batch.captions]
    assert abs(sum(flips) / len(flips) - 0.5) < 4 * (0.25 / len(flips)) ** 0.5
    assert abs(sum(empty) / len(empty) - 0.3) < 4 * (0.21 / len(empty)) ** 0.5
    both = sum(a and b for a, b in zip(flips, empty, strict=True)) / len(flips)
    assert abs(both - 0.15) < 4 * (0.1275 / len(flips)) ** 0.5, "flip and dropout hang together"


@pytest.mark.acts("data.caption_dropout")
@pytest.mark.parametrize(("rate", "share"), [(0.0, 0), (1.0, 1)])
def test_no_and_full_caption_dropout(made, rate, share):
    dealt = loader(made, DEALING, caption_dropout=rate, flip=False)
    batches = [dealt.batch(k) for k in range(50)]
    assert all((caption == "") == share for batch in batches for caption in batch.captions)
    assert not any(flip for batch in batches for flip in mirrored(batch))


def test_captions_and_their_states_belong_to_the_pictures(made):
    dealt = loader(made, DEALING)
    for k in range(30):
        batch = dealt.batch(k)
        assert all(caption in ("", f"fox {item}") for caption, item in zip(batch.captions, batch.items, strict=True))
        assert torch.equal(batch.text_states, torch.stack([code_points(caption) for caption in batch.captions]))
    without = loader(made, DEALING, with_texts=False).batch(3)
    assert without.text_states is None and without.captions == dealt.batch(3).captions


def test_sizes_and_crops(made):
    dataset, _, _ = made
    dealt = loader(made, DEALING)
    for k in range(20):
        batch = dealt.batch(k)
        assert batch.frames.original == [dataset.items[item].size for item in batch.items]
        expected = {(64, 64): ((64, 64), (0, 0)), (100, 60): ((80, 48), (0, 0)), (150, 200): ((48, 80), (6, 0))}
        assert [(batch.frames.target, crop) for crop in batch.frames.crops] == [expected[size] for size in batch.frames.original]
        assert batch.latents.shape[2:] == (batch.frames.target[1] // 8, batch.frames.target[0] // 8)


@pytest.mark.acts("data.partial_batches", "train.batch_size", "train.seed")
def test_settings_become_dealing():
    config = Config(data=DataConfig(partial_batches="fill"), train=TrainConfig(batch_size=3, seed=99))
    assert Dealing.of(config, 2, 1) == Dealing(99, 3, True, 2, 1)


def test_batches_are_the_same_on_every_machine(made):
    """A change of these figures changes what a seed means: every recorded run would train on other batches."""
    dealt = loader(made, DEALING)
    assert [(batch.items, mirrored(batch), batch.captions) for batch in map(dealt.batch, range(3))] == [
        ([8, 7], [False, True], ["fox 8", "fox 7"]),
        ([0, 1], [False, False], ["", "fox 1"]),
        ([3, 0], [False, True], ["fox 3", ""]),
    ]


def test_texts_without_trigger_are_drawn_like_those_with_it(made):
    """The same alternative and choice, dropped together; the captions are those of a loader that wants no plain texts."""
    dataset, latents, _ = made
    captions, plain = ("duo, a {red|grey} fox", "duo, fox"), ("a {red|grey} fox", "fox")
    items = tuple(replace(item, captions=captions, plain=plain) for item in dataset.items)
    twins = (replace(dataset, items=items), latents, None)
    wanted, usual = loader(twins, replace(DEALING, plain=True)), loader(twins, DEALING)
    row = [wanted.batch(k) for k in range(30)]
    assert all(batch.captions == usual.batch(k).captions and usual.batch(k).plain == [] for k, batch in enumerate(row))
    pairs = {pair for batch in row for pair in zip(batch.captions, batch.plain, strict=True)}
    assert pairs == {("", "")} | {(f"duo, {text}", text) for text in ("a red fox", "a grey fox", "fox")}


def test_texts_without_trigger_are_encoded_ahead(made, tmp_path):
    dataset, latents, _ = made
    items = tuple(replace(item, plain=(f"plain {item.caption}",)) for item in dataset.items)
    dataset = replace(dataset, items=items)
    texts = Cache(tmp_path).texts(phrasing.texts(dataset, plain=True), CountingTexts().encoder)
    batch = loader((dataset, latents, texts), replace(DEALING, plain=True)).batch(0)
    assert torch.equal(batch.plain_states, texts.batch(batch.plain)) and batch.plain != batch.captions
    assert not set(phrasing.texts(dataset)) & {text for item in items for text in item.plain}
