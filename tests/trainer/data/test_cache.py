"""The cache: what is encoded again and what is not, counted; and every way in which an entry can go wrong."""

import os
import time

import pytest
import torch
from PIL import Image

from tests.trainer.data.pictures import CountingPixels, CountingTexts, blocks, code_points, save, settings
from trainer.data import Cache, PixelEncoder, Views, scan
from trainer.data.entries import Entries
from trainer.data.images import decode, fit, to_tensor
from trainer.data.views import View
from trainer.errors import DiskError, ExitCode, InputError, NonFiniteError, StoppedError
from trainer.team import Team


@pytest.fixture
def folder(tmp_path):
    """Three pictures in two buckets."""
    for name, size in (("a.png", (64, 64)), ("b.png", (100, 60)), ("c.png", (70, 80))):
        save(tmp_path / "pictures", name, size, caption=name[0])
    return tmp_path / "pictures"


def encoded(folder, cache, fingerprint="vae-1", **options) -> int:
    """How many pictures had to be encoded."""
    counting = CountingPixels(fingerprint)
    Cache(cache).latents(views(folder, **options), counting.encoder)
    return len(counting.seen)


def views(folder, **options) -> Views:
    return Views(scan(settings(folder, **options)))


def view(dataset, index, mirrored=False) -> View:
    return View(index, dataset.items[index].bucket, mirrored=mirrored)


def test_the_encoder_sees_the_picture_at_its_bucket_and_the_store_gives_back_what_it_gave(folder, tmp_path):
    dataset, counting = scan(settings(folder, flip=True)), CountingPixels()
    store = Cache(tmp_path / "cache").latents(Views(dataset), counting.encoder)
    again = Cache(tmp_path / "cache").latents(Views(dataset), CountingPixels().encoder)
    assert counting.batches == [1] * 6
    for index, item in enumerate(dataset.items):
        pixels = fit(decode(item.path, dataset.background).pixels, item.bucket)
        for mirrored in (False, True):
            tensor = to_tensor(pixels, mirrored)
            assert any(torch.equal(tensor, seen) for seen in counting.seen)
            for source in (store, again):
                mean, std = source.get(view(dataset, index, mirrored))
                assert torch.equal(mean, blocks(tensor[None])[0])
                assert torch.equal(std, torch.full_like(mean, 0.1))


def test_a_picture_is_decoded_once_for_itself_and_its_mirror_image(folder, tmp_path, monkeypatch):
    decoded, dataset = [], scan(settings(folder, flip=True))
    monkeypatch.setattr("trainer.data.cache.decode", lambda path, colour: decoded.append(path.name) or decode(path, colour))
    Cache(tmp_path / "cache").latents(Views(dataset), CountingPixels().encoder)
    assert sorted(decoded) == ["a.png", "b.png", "c.png"]


def test_nothing_is_encoded_twice(folder, tmp_path):
    assert encoded(folder, tmp_path / "cache") == 3
    assert encoded(folder, tmp_path / "cache") == 0


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"flip": True}, 3),  # the mirrored ones alone
        ({"fingerprint": "vae-2"}, 3),
        ({"resolution": 48}, 3),
        ({"trigger": "word"}, 0),
        ({"background": "black"}, 0),  # no picture is transparent
        ({"repeats": 5}, 0),
    ],
)
def test_a_changed_setting_makes_anew_what_it_concerns(folder, tmp_path, change, count):
    encoded(folder, tmp_path / "cache")
    assert encoded(folder, tmp_path / "cache", **change) == count
    assert encoded(folder, tmp_path / "cache") == 0, "the first entries are still there"


def test_an_edited_pixel_makes_anew_exactly_that_entry(folder, tmp_path):
    encoded(folder, tmp_path / "cache")
    image = Image.open(folder / "b.png")
    image.putpixel((50, 30), (1, 2, 3))
    image.save(folder / "b.png")
    counting = CountingPixels()
    Cache(tmp_path / "cache").latents(views(folder), counting.encoder)
    assert len(counting.seen) == 1 and counting.seen[0].shape == (3, 48, 80)


@pytest.mark.acts("data.background")
def test_background_concerns_transparent_pictures_alone(folder, tmp_path):
    Image.open(folder / "a.png").convert("RGB").save(folder / "a.png")
    glass = Image.open(folder / "c.png").convert("RGBA")
    glass.putalpha(100)
    glass.save(folder / "c.png")
    encoded(folder, tmp_path / "cache")
    assert encoded(folder, tmp_path / "cache", background="black") == 1


def test_a_touched_renamed_or_recoded_picture_is_found_again(folder, tmp_path):
    encoded(folder, tmp_path / "cache")
    os.utime(folder / "a.png")
    (folder / "b.png").rename(folder / "z.png")
    Image.open(folder / "c.png").save(folder / "c.bmp")
    (folder / "c.png").unlink()
    assert encoded(folder, tmp_path / "cache") == 0


def test_equal_pictures_are_encoded_once(folder, tmp_path):
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    assert encoded(folder, tmp_path / "cache") == 3


def test_batches_never_mix_buckets(folder, tmp_path):
    counting = CountingPixels()
    shown = views(folder, flip=True)
    store = Cache(tmp_path).latents(shown, counting.encoder, batch_size=3)
    assert sorted(counting.batches) == [1, 2, 3]  # 4 of 64x64, 2 of 80x48
    one_by_one = Cache(tmp_path / "other").latents(shown, CountingPixels().encoder)
    for index in range(3):
        mirrored = view(shown.dataset, index, mirrored=True)
        assert torch.allclose(store.get(mirrored)[0], one_by_one.get(mirrored)[0], atol=1e-6)


def test_two_runs_share_a_folder(folder, tmp_path):
    save(tmp_path / "others", "x.png")
    assert encoded(folder, tmp_path / "cache") == 3
    assert encoded(tmp_path / "others", tmp_path / "cache") == 1
    assert encoded(folder, tmp_path / "cache") == 0


def entry_files(cache):
    return sorted(cache.glob("*.safetensors"))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_bit(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda data: b"", lambda data: b"\xff" * len(data)])
def test_a_damaged_entry_is_made_anew_and_said(folder, tmp_path, damage):
    cache = tmp_path / "cache"
    encoded(folder, cache)
    before = {file: file.read_bytes() for file in entry_files(cache)}
    victim = entry_files(cache)[1]
    victim.write_bytes(damage(before[victim]))
    notices, counting = [], CountingPixels()
    Cache(cache, notice=notices.append).latents(views(folder), counting.encoder)
    assert len(counting.seen) == 1
    assert len(notices) == 1 and ".png is damaged and made anew" in notices[0]
    assert {file: file.read_bytes() for file in entry_files(cache)} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_name_the_picture_and_are_not_kept(folder, tmp_path, value):
    def encode(pixels):
        mean = blocks(pixels)
        if pixels.shape[-2:] == (48, 80):
            mean[0, 0, 0, 0] = value
        return mean, mean

    with pytest.raises(NonFiniteError, match=r"the latents of b.png are not finite") as caught:
        Cache(tmp_path / "cache").latents(views(folder), PixelEncoder(encode, "v"))
    assert caught.value.code == ExitCode.NON_FINITE and caught.value.fix
    assert len(entry_files(tmp_path / "cache")) == 2


def test_a_stop_is_honoured_between_entries_and_what_is_done_is_kept(folder, tmp_path):
    counting, dataset = CountingPixels(), scan(settings(folder))
    with pytest.raises(StoppedError):
        Cache(tmp_path / "cache", should_stop=lambda: len(counting.seen) == 2).latents(Views(dataset), counting.encoder)
    assert len(counting.seen) == 2
    assert encoded(folder, tmp_path / "cache") == 1


def test_each_process_encodes_its_share_and_finds_the_rest(folder, tmp_path):
    dataset, shares, stores = scan(settings(folder, flip=True)), [CountingPixels(), CountingPixels()], []
    for rank, counting in enumerate(shares):
        cache = Cache(tmp_path / "cache", team=Team(rank, 2))
        stores.append(cache.latents(Views(dataset), counting.encoder))
    assert [len(counting.seen) for counting in shares] == [4, 2]
    alone = Cache(tmp_path / "alone").latents(Views(dataset), CountingPixels().encoder)
    for store in stores:
        for index in range(3):
            for mirrored in (False, True):
                assert torch.equal(store.get(view(dataset, index, mirrored))[0], alone.get(view(dataset, index, mirrored))[0])


def test_where_another_process_stops_this_one_stops_too(folder, tmp_path):
    asked = []
    team = Team(0, 2, any=lambda failed: asked.append(failed) or True)
    with pytest.raises(StoppedError, match="another process"):
        Cache(tmp_path / "cache", team=team).latents(views(folder), CountingPixels().encoder)
    with pytest.raises(StoppedError, match="stopped while"):
        Cache(tmp_path, should_stop=lambda: True, team=team).latents(views(folder), CountingPixels().encoder)
    assert asked == [False, True]


def test_progress_counts_what_is_ready(folder, tmp_path):
    save(folder, "d.png", caption="d")
    dataset = scan(settings(folder))
    steps = []
    cache = Cache(tmp_path / "cache", progress=lambda done, total: steps.append((done, total)))
    cache.latents(Views(dataset), CountingPixels().encoder)
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    steps.clear()
    cache.latents(views(folder, flip=True), CountingPixels().encoder)
    assert steps[0] == (4, 8) and steps[-1] == (8, 8)


def test_a_picture_changed_after_the_scan_is_refused(folder, tmp_path):
    dataset = scan(settings(folder))
    save(folder, "b.png", (100, 60), seed=9)
    with pytest.raises(InputError, match=r"b.png changed while the run was starting"):
        Cache(tmp_path / "cache").latents(Views(dataset), CountingPixels().encoder)
    (folder / "b.png").unlink()
    with pytest.raises(InputError, match=r"b.png changed while the run was starting"):
        Cache(tmp_path / "cache").latents(Views(dataset), CountingPixels().encoder)


def test_a_full_disk_is_a_disk_error_and_leaves_no_half_entry(folder, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left on device") as caught:
        encoded(folder, tmp_path / "cache")
    assert caught.value.code == ExitCode.DISK
    assert list((tmp_path / "cache").iterdir()) == []


def test_old_litter_of_killed_processes_is_swept_and_new_left_alone(tmp_path):
    old, new = tmp_path / ".tmp-old", tmp_path / ".tmp-new"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    Cache(tmp_path)
    assert not old.exists() and new.exists()


def test_entries_beyond_the_memory_are_read_from_disk(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.entries.IN_MEMORY", 0)
    dataset = scan(settings(folder))
    store = Cache(tmp_path / "cache").latents(Views(dataset), CountingPixels().encoder)
    pixels = to_tensor(fit(decode(folder / "a.png", dataset.background).pixels, (64, 64)))
    assert torch.equal(store.get(View(0, (64, 64)))[0], blocks(pixels[None])[0])
    for file in entry_files(tmp_path / "cache"):
        file.unlink()
    with pytest.raises(DiskError, match="is gone or damaged"):
        store.get(View(0, (64, 64)))


def test_entries_in_memory_need_no_disk(folder, tmp_path):
    store = Cache(tmp_path / "cache").latents(views(folder), CountingPixels().encoder)
    for file in entry_files(tmp_path / "cache"):
        file.unlink()
    assert store.get(View(0, (64, 64)))[0].shape == (4, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_an_entry_comes_back_bit_for_bit_with_its_type(tmp_path, dtype):
    entry = {"a": torch.arange(24).reshape(2, 3, 4).to(dtype), "b": torch.zeros(0, 3, dtype=dtype)}
    Entries(tmp_path, "test").put("key", entry)
    back = Entries(tmp_path, "test").get("key")
    assert all(torch.equal(back[name], entry[name]) and back[name].dtype == dtype for name in entry)
    assert entry_files(tmp_path)[0].stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def texts(cache, wanted, **options) -> list[str]:
    """What had to be encoded."""
    counting = CountingTexts(**options)
    Cache(cache).texts(wanted, counting.encoder)
    return counting.seen


def test_an_edited_caption_makes_anew_exactly_that_entry(tmp_path):
    assert texts(tmp_path, ["", "fox", "cat"]) == ["", "fox", "cat"]
    assert texts(tmp_path, ["", "fox", "cat"]) == []
    assert texts(tmp_path, ["", "fox", "cats"]) == ["cats"]
    assert texts(tmp_path, ["fox", "fox"]) == []


@pytest.mark.parametrize("change", [{"fingerprint": "clip-2"}, {"max_length": 150}, {"clip_skip": 1}])
def test_another_encoder_length_or_layer_makes_all_texts_anew(tmp_path, change):
    texts(tmp_path, ["fox", "cat"])
    assert texts(tmp_path, ["fox", "cat"], **change) == ["fox", "cat"]


def test_states_come_back_in_the_encoders_form(tmp_path):
    wanted = ["fox", "", "füchse 🦊"]
    alone = Cache(tmp_path).texts(wanted, CountingTexts().encoder).batch(["", "fox", ""])
    assert torch.equal(alone, torch.stack([code_points(text) for text in ("", "fox", "")]))
    for _ in range(2):  # written, then read
        pair = Cache(tmp_path / "pair").texts(wanted, CountingTexts(pair=True).encoder).batch(["füchse 🦊", "fox"])
        assert isinstance(pair, tuple) and len(pair) == 2
        expected = torch.stack([code_points("füchse 🦊"), code_points("fox")])
        assert torch.equal(pair[0], expected) and torch.equal(pair[1], expected[:, 0] * 2)
