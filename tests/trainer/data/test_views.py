"""Views, masks and batches with every option on: what is cached, what is seen where, and the same again."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.trainer.data.pictures import CountingPixels, CountingTexts, save, settings
from trainer.config import DataConfig
from trainer.data import Cache, Dealing, Encoded, Loader, Views, phrasing, scan
from trainer.data.cache import TextStore
from trainer.data.epoch import notes as epoch_notes
from trainer.data.images import decode, fit, to_tensor
from trainer.data.views import Shot, View
from trainer.errors import InputError

JITTER = [0.2, 0.2, 0.2, 0.05]
EVERYTHING = {
    "flip": True, "crop": "random", "crops": 3, "crop_keep": 0.6, "color_jitter": JITTER, "color_variants": 2,
    "resolutions": [64, 32], "shuffle_tags": True, "tag_dropout": 0.2, "caption_dropout": 0.2, "mask": "files",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures, two of which have masks, and two of the class."""
    folder = tmp_path_factory.mktemp("views")
    for index, size in enumerate([(200, 160), (160, 200), (180, 180), (200, 160), (36, 36)]):
        save(folder / "style", f"{index}.png", size, caption=f"fox {index}, red, big, at night")
    for index in (0, 2):
        width, height = Image.open(folder / "style" / f"{index}.png").size
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 3, : width // 2] = 255
        Image.fromarray(mask).save(folder / "style" / f"{index}.mask.png")
    for index in range(2):
        save(folder / "class", f"{index}.png", (170, 170), caption="a fox")
    return folder


def data(folder, **changes) -> DataConfig:
    sources = [
        {"path": str(folder / "style"), "repeats": 2, "loss_weight": 2.0},
        {"path": str(folder / "class"), "regularization": True, "mask": "none"},
    ]
    shared = {name: value for name, value in {**EVERYTHING, **changes}.items() if name != "mask"}
    sources[0] |= {"mask": {**EVERYTHING, **changes}["mask"]}
    return DataConfig(resolution=64, bucket_step=16, sources=sources, **shared)


def build(config: DataConfig, cache, texts: TextStore | None = None, **dealing) -> Loader:
    views, store = Views(scan(config)), Cache(cache)
    latents = store.latents(views, CountingPixels().encoder)
    return Loader(views, Encoded(latents, store.masks(views, latents), texts), Dealing(**{"seed": 5, "batch_size": 2} | dealing))


@pytest.fixture(scope="module")
def loader(folder):
    return build(data(folder), folder / "cache")


@pytest.mark.acts("data.resolutions", "data.crops", "data.color_variants", "data.flip")
def test_everything_that_can_be_drawn_is_cached_and_counted(folder, tmp_path):
    views, counting = Views(scan(data(folder))), CountingPixels()
    every = list(views.all())
    assert len(every) == len(set(every)) == (6 * 2 + 1) * 3 * 3 * 2  # six pictures at two sizes, the small one at one
    Cache(tmp_path / "cache").latents(views, counting.encoder)
    assert len(counting.seen) == len({views.identity(view) for view in every})
    again = CountingPixels()
    Cache(tmp_path / "cache").latents(Views(scan(data(folder))), again.encoder)
    assert not again.seen
    notes = " ".join(views.notes())
    assert (
        "6 pictures x 2 resolutions x 3 crops x 3 colours x 2 flips + 1 picture x 3 crops x 3 colours x 2 flips = 234 views"
        in notes
    )
    assert "1 picture too small for some of data.resolutions" in notes


@pytest.mark.acts("data.crop", "data.crops", "data.crop_keep")
def test_crops_keep_at_least_their_share_and_zoom_in(tmp_path):
    """Of a square picture of 200 pixels at 64 each crop is a square: the whole, or a part no smaller than asked."""
    save(tmp_path, "a.png", (200, 200))

    def sides(**changes: object) -> list[float]:
        views = Views(scan(settings(tmp_path, **changes)))
        return [box[2] - box[0] for view in views.all() for box in [views.box(view)]]

    assert sides() == [200]
    assert sides(crop="random", crops=4) == pytest.approx([200] * 4)
    shares = [side / 200 for side in sides(crop="random", crops=40, crop_keep=0.5)]
    assert len(shares) == 40 and 0.5 <= min(shares) < 0.6 and 0.9 < max(shares) <= 1


def test_a_plain_data_set_says_nothing_and_has_one_view_a_picture(folder):
    dataset = scan(settings(folder / "style"))
    views = Views(dataset)
    assert [view.item for view in views.all()] == list(range(5)) and not list(views.notes())
    plain = Views(scan(data(folder)), plain=True)
    assert len(list(plain.all())) == 7 and all(v == View(v.item, plain.dataset.items[v.item].bucket) for v in plain.all())


def test_pictures_without_room_for_another_crop_are_said(tmp_path):
    save(tmp_path, "square.png", (64, 64))
    save(tmp_path, "wide.png", (250, 100))
    notes = list(Views(scan(settings(tmp_path, crop="random", crops=4))).notes())
    assert notes[0] == "2 pictures x 4 crops = 8 views cached"
    assert "no room for a second crop in 1 picture of" in notes[1] and "crop_keep" in notes[1]


@pytest.mark.acts("data.color_jitter")
def test_a_view_is_the_cut_part_coloured_and_mirrored(folder, loader):
    views, dataset = loader._views, loader._views.dataset
    picture = decode(dataset.items[0].path, dataset.background).pixels
    for view in [View(0, (64, 48), crop, 0, mirrored) for crop in range(3) for mirrored in (False, True)]:
        shot = replace(view, bucket=dataset.items[0].bucket)
        cut = fit(picture, shot.bucket, views.box(shot))
        mean = loader._encoded.latents.get(shot)[0]
        assert torch.allclose(mean[:3], functional.avg_pool2d(to_tensor(cut, shot.mirrored), 8))
    plain, coloured = (loader._encoded.latents.get(View(0, dataset.items[0].bucket, 1, colour))[0] for colour in (0, 1))
    assert not torch.allclose(plain, coloured)


def test_masks_are_cut_as_their_picture_averaged_and_mirrored(folder, loader):
    views, masks = loader._views, loader._encoded.masks
    for view in views.all():
        size = torch.Size((view.bucket[1] // 8, view.bucket[0] // 8))
        mask = masks.get(view, size)
        assert mask.shape == (1, *size) and mask.dtype == torch.float32
        item = views.dataset.items[view.item]
        if item.mask is None:
            assert torch.equal(mask, torch.ones(1, *size))
            continue
        left, top, right, bottom = views.box(view)
        inside_x = np.clip(item.width // 2 - left, 0, right - left) / (right - left)
        inside_y = np.clip(item.height // 3 - top, 0, bottom - top) / (bottom - top)
        assert mask.mean().item() == pytest.approx(inside_x * inside_y, abs=1e-4)
        if 0 < inside_x < 1 and inside_y > 0:
            columns = mask.mean((0, 1))
            assert (columns[-1] > columns[0]) if view.mirrored else (columns[0] > columns[-1])


def test_no_masks_no_store(folder, tmp_path):
    batch = build(data(folder, mask="none"), tmp_path).batch(0)
    assert batch.masks is None


def test_a_mask_changed_after_the_scan_is_refused(tmp_path):
    save(tmp_path / "p", "a.png", (64, 64))
    Image.new("L", (64, 64), 255).save(tmp_path / "p" / "a.mask.png")
    views = Views(scan(settings(tmp_path / "p", mask="files")))
    latents = Cache(tmp_path / "c").latents(views, CountingPixels().encoder)
    Image.new("L", (64, 64), 9).save(tmp_path / "p" / "a.mask.png")
    with pytest.raises(InputError, match=r"a\.mask\.png changed while the run was starting"):
        Cache(tmp_path / "c").masks(views, latents)


def told(batch) -> tuple:
    return (
        batch.views,
        batch.captions,
        batch.frames,
        batch.epoch,
        batch.latents.tolist(),
        batch.masks.tolist(),
        batch.weights.tolist(),
    )


def test_a_run_that_goes_on_sees_the_same_pictures_crops_colours_and_texts(folder, loader):
    row = [told(loader.batch(k)) for k in range(40)]
    later = build(data(folder), folder / "cache")
    assert [told(later.batch(k)) for k in (33, 34, 35, 2)] == [row[k] for k in (33, 34, 35, 2)]
    ranks = [build(data(folder), folder / "cache", world=2, rank=rank) for rank in (0, 1)]
    assert [told(ranks[k % 2].batch(k // 2)) for k in range(40)] == row
    assert told(build(data(folder), folder / "cache", seed=6).batch(0)) != row[0]


def test_an_epoch_holds_every_shot_its_folders_repeats_and_all_views_come(loader):
    batches = [loader.batch(k) for k in range(30 * loader.batches_per_epoch)]
    first = [batch for batch in batches if batch.epoch == 0]
    items = loader._views.dataset.items
    seen = Counter(Shot(view.item, view.bucket) for batch in first for view in batch.views)
    assert seen == {shot: 1 if items[shot.item].regularization else 2 for shot in loader._views.shots}
    drawn = Counter((v.crop, v.colour, v.mirrored) for batch in batches for v in batch.views)
    total = drawn.total()
    assert len(drawn) == 18 and all(abs(n / total - 1 / 18) < 5 * (1 / 18 / total) ** 0.5 for n in drawn.values())


def test_weights_flags_and_frames_belong_to_the_pictures(loader):
    views = loader._views
    for batch in map(loader.batch, range(40)):
        items = [views.dataset.items[index] for index in batch.items]
        assert batch.regularization == [item.regularization for item in items]
        assert batch.weights.tolist() == [1.0 if item.regularization else 2.0 for item in items]
        assert batch.frames.original == [item.size for item in items] and batch.frames.target == batch.views[0].bucket
        for view, item, (left, top) in zip(batch.views, items, batch.frames.crops, strict=True):
            box = views.box(view)
            scale = view.bucket[0] / (box[2] - box[0])
            assert (left, top) == (round((item.width - box[2] if view.mirrored else box[0]) * scale), round(box[1] * scale))


def test_regularisation_pictures_are_spread_over_the_epoch_and_said(folder, loader):
    flags = [flag for k in range(20 * loader.batches_per_epoch) for flag in loader.batch(k).regularization]
    half = len(flags) // 2
    assert 0.35 < sum(flags[:half]) / sum(flags) < 0.65
    notes = " ".join(epoch_notes(loader._views, loader._dealing))
    assert "18 training pictures and 4 regularisation pictures, repeats included" in notes


def test_batches_that_are_not_full_are_filled_or_smaller_and_said(folder):
    views = Views(scan(settings(folder / "style")))
    smaller, filled = Dealing(seed=1, batch_size=4), Dealing(seed=1, batch_size=4, fill=True)
    held = smaller.order(views).short_batches
    assert (
        held
        and f"{len(held)} of " in next(epoch_notes(views, smaller))
        and "none is dropped" in next(epoch_notes(views, smaller))
    )
    assert f"filled up with {sum(4 - n for n in held)} pictures" in next(epoch_notes(views, filled))
    order = filled.order(views)
    assert {len(order.batch(number)) for number in range(order.batches_per_epoch)} == {4}


def test_known_texts_are_handed_out_with_their_states(folder, tmp_path):
    config = data(folder, shuffle_tags=False, tag_dropout=0.0)
    texts = Cache(tmp_path).texts(phrasing.texts(scan(config)), CountingTexts().encoder)
    loader = build(config, folder / "cache", texts=texts)
    assert not loader.encodes_in_the_loop
    for batch in map(loader.batch, range(20)):
        assert torch.equal(batch.text_states, texts.batch(batch.captions))
