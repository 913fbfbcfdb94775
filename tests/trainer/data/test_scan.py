"""A folder as a user leaves it: every file is used, refused by name, or mentioned."""

import os
import unicodedata

import pytest
from PIL import Image

from tests.trainer.data.pictures import save, settings
from trainer.data import Report, phrasing, scan
from trainer.data.looks import Watch
from trainer.errors import ExitCode, InputError, StoppedError


def refused(config, **options) -> str:
    with pytest.raises(InputError) as caught:
        scan(config, **options)
    assert caught.value.fix, "an error without advice"
    return str(caught.value)


@pytest.mark.acts("data.images", "data.resolution", "data.bucket_step")
def test_items_are_sorted_whole_and_in_their_buckets(tmp_path):
    save(tmp_path, "b_wide.png", (100, 60), "a wide one")
    save(tmp_path, "a.jpg", (64, 64))
    (tmp_path / "a.caption").write_text("the first")
    save(tmp_path, "red_fox_03.webp", (60, 100))
    dataset = scan(settings(tmp_path, trigger="duo style"))
    assert [(item.path.name, item.caption, item.caption_source, item.size, item.bucket) for item in dataset.items] == [
        ("a.jpg", "duo style, the first", ".caption", (64, 64), (64, 64)),
        ("b_wide.png", "duo style, a wide one", ".txt", (100, 60), (80, 48)),
        ("red_fox_03.webp", "duo style, red fox", "file name", (60, 100), (48, 80)),
    ]
    assert dataset.report == Report(
        pictures=3,
        captions={".caption": 1, ".txt": 1, "file name": 1},
        buckets={"48x80": 1, "64x64": 1, "80x48": 1},
        dropped=0,
        notes=[
            "1 caption from file names, such as red_fox_03.webp -> 'duo style, red fox'",
            "3 captions lack the trigger 'duo style': it is put before them",
        ],
    )
    assert phrasing.texts(dataset) == ("", "duo style, the first", "duo style, a wide one", "duo style, red fox")


def test_a_clean_folder_has_nothing_to_note(tmp_path):
    save(tmp_path, "a.png", caption="my style, fox")
    for name in ("dataset.toml", "Thumbs.db", "desktop.ini", ".DS_Store", "._a.png"):
        (tmp_path / name).write_bytes(b"\0\1")
    dataset = scan(settings(tmp_path, trigger="my style"))
    assert dataset.report == Report(1, {".txt": 1}, {"64x64": 1}, 0, [])


def test_everything_unusual_is_noted(tmp_path):
    colours = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green")]
    colours[0].save(tmp_path / "moving.gif", save_all=True, append_images=colours[1:])
    Image.new("RGBA", (64, 64), (1, 2, 3, 0)).save(tmp_path / "glass.png")
    Image.new("CMYK", (64, 64), (9, 9, 9, 9)).save(tmp_path / "print.jpg")
    save(tmp_path, "small.png", (40, 40), caption=" ")
    save(tmp_path, "long.png", (400, 64), caption="one\ntwo")
    (tmp_path / "long.caption").write_text("three")
    (tmp_path / "nobody.txt").write_text("orphan")
    (tmp_path / "notes.docx").write_bytes(b"PK\x03\x04")
    (tmp_path / "copy.png").write_bytes((tmp_path / "glass.png").read_bytes())
    save(tmp_path / "more", "x.png")
    notes = scan(settings(tmp_path)).notes
    assert notes == (
        "pictures in subfolders are not used (data.recursive is off): 1 in more",
        "left out, since not pictures: notes.docx",
        "1 caption file without a picture of that name: nobody.txt",
        "4 captions from file names, such as copy.png -> 'copy'",
        "1 caption empty (trained without words): small.png",
        "1 caption with several lines, which are joined: long.png",
        "1 picture with captions in both .txt and .caption: .txt is used: long.png",
        "1 picture animated or of several pages: the first frame is used: moving.gif",
        "2 pictures transparent: data.background = white is put under: copy.png, glass.png",
        "1 picture in CMYK without a colour profile: colours are approximate: print.jpg",
        "glass.png is the same picture as copy.png",
        "1 picture too small for data.resolution, trained at less: small.png",
        "1 picture cropped by more than a quarter: long.png",
    )


def test_a_picture_under_another_ending_is_used(tmp_path):
    save(tmp_path, "a.png").rename(tmp_path / "a.png_large")
    assert [item.path.name for item in scan(settings(tmp_path)).items] == ["a.png_large"]


@pytest.mark.acts("data.upscale")
def test_enlarging_is_asked_for_and_said(tmp_path):
    save(tmp_path, "a.png", (20, 20), caption="fox")
    dataset = scan(settings(tmp_path, upscale=True))
    assert dataset.items[0].bucket == (64, 64)
    assert dataset.notes == ("1 picture enlarged to the bucket: a.png",)


@pytest.mark.parametrize("name", ["füchse 🦊.png", "赤い狐.png", "with space.png", "it's; $HOME & 'q'.png", "ثعلب.png"])
def test_names_of_every_kind(tmp_path, name):
    save(tmp_path / name.removesuffix(".png"), name, caption="赤い狐, 🦊")
    item = scan(settings(tmp_path / name.removesuffix(".png"))).items[0]
    assert (item.caption, item.caption_source) == ("赤い狐, 🦊", ".txt")


@pytest.mark.parametrize(
    "stem",
    [
        "x" * 250,
        "é" * 125,  # 250 bytes
        "e\u0301" * 80,  # 240 bytes of combining accents
        "👩‍👩‍👧‍👦" * 10,
        "fox...",
        " fox ",
        "a.b.c",
        "-rf",
        "%s{}\\n",
        "\u202efox",
        "CON",
    ],
)
def test_long_and_odd_names_keep_their_caption(tmp_path, stem):
    save(tmp_path, f"{stem}.png")
    (tmp_path / f"{stem}.txt").write_text("a fox", encoding="utf-8")
    dataset = scan(settings(tmp_path))
    assert [(item.path.stem, item.caption) for item in dataset.items] == [(stem, "a fox")] and not dataset.notes


def test_a_name_that_is_no_text_is_used_and_shown_safely(tmp_path):
    save(tmp_path, "a.png").rename(tmp_path / os.fsdecode(b"caf\xe9_au_lait.png"))
    dataset = scan(settings(tmp_path))
    assert dataset.items[0].caption == "caf au lait"
    "".join(dataset.notes).encode("utf-8")


def test_a_caption_named_by_another_system_is_found(tmp_path):
    save(tmp_path, unicodedata.normalize("NFD", "é.png"))
    (tmp_path / "é.txt").write_text("accent")
    assert scan(settings(tmp_path)).items[0].caption == "accent"


def missing(folder):
    return folder / "gone", ["gone' does not exist", "check the path; a relative one starts at"]


def a_file(folder):
    return save(folder, "a.png"), ["is a file, not a folder", f"give the folder it lies in: {folder}"]


def empty(folder):
    return folder, [f"no picture in {folder}: the folder is empty", "put pictures (PNG, JPEG, WebP ...) into it"]


def only_others(folder):
    for name in ("a.txt", "b.txt", "c.mp4"):
        (folder / name).write_text("x")
    return folder, ["it holds only 2 .txt, 1 .mp4"]


def one_level_deeper(folder):
    for index in range(3):
        save(folder / "10_cat", f"{index}.png")
    save(folder / "20_dog" / "puppies", "a.png")
    save(folder / "20_dog" / "puppies" / "too deep", "b.png")
    save(folder / "20_dog" / ".thumbs", "c.png")
    return folder, ["4 found in folders below it (3 in 10_cat, 1 in 20_dog/puppies)", f"such as {folder / '10_cat'} (3 pictures)"]


def nothing_given(folder):
    return "", ["data.images is empty", "--images DIR"]


def nul_in_path(folder):
    return f"{folder}/a\0b", ["cannot be read"]


def too_long(folder):
    return folder / ("x" * 300), ["cannot be read: File name too long"]


@pytest.mark.parametrize("make", [missing, a_file, empty, only_others, one_level_deeper, nothing_given, nul_in_path, too_long])
def test_folders_without_pictures_say_what_is_there_and_what_to_do(tmp_path, make):
    folder, parts = make(tmp_path)
    message = refused(settings(folder))
    assert [part for part in parts if part not in message] == []


def test_every_broken_file_is_listed_once_with_its_reason(tmp_path):
    data = save(tmp_path, "good.png", caption="fine").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:900])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.png").write_text("<html>404</html>")
    (tmp_path / "photo.jxl").write_bytes(b"\xff\x0a")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("F", (64, 64)).save(tmp_path / "float.tif")
    save(tmp_path, "latin.png")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    lines = refused(settings(tmp_path)).splitlines()
    assert lines[0] == f"8 files in {tmp_path} cannot be used:"
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == [
        "cut.png",
        "empty.jpg",
        "float.tif",
        "latin.txt",
        "link.png",
        "page.png",
        "photo.jxl",
        "pipe.png",
    ]
    assert "  latin.txt: is not UTF-8: byte 3 is 0xe9; save it as UTF-8" in lines
    assert "  link.png: is a link to nothing" in lines and "  pipe.png: is not an ordinary file" in lines
    assert lines[-1] == "What to do: repair these files or take them out of the folder; nothing was trained"


def test_a_long_list_is_cut_and_counted(tmp_path):
    for index in range(60):
        (tmp_path / f"{index:02d}.png").touch()
    lines = refused(settings(tmp_path)).splitlines()
    assert lines[0].startswith("60 files") and lines[50].startswith("  49.png") and lines[51] == "  and 10 more"


def test_pictures_smaller_than_a_step_are_named_with_the_ways_out(tmp_path):
    save(tmp_path, "a.png", (100, 15))
    save(tmp_path, "b.png", (1, 500))
    save(tmp_path, "c.png")
    message = refused(settings(tmp_path))
    assert "2 pictures smaller than data.bucket_step = 16" in message
    assert "a.png: 100x15 is smaller than 16x16" in message and "b.png: 1x500" in message and "c.png" not in message
    assert "data.upscale = true" in message


def test_settings_that_cannot_work_are_refused_before_anything_is_read(tmp_path):
    assert "data.background = 'wihte' is no colour" in refused(settings(tmp_path / "gone", background="wihte"))
    assert "multiples of 32" in refused(settings(tmp_path / "gone"), factor=32)


def test_the_upright_size_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 60)).save(tmp_path / "a.jpg", exif=exif)
    item = scan(settings(tmp_path)).items[0]
    assert (item.size, item.bucket) == ((60, 100), (48, 80))


def test_progress_counts_and_stopping_stops(tmp_path):
    for index in range(5):
        save(tmp_path, f"{index}.png")
    steps = []
    scan(settings(tmp_path), watch=Watch(progress=lambda done, total: steps.append((done, total))))
    assert steps == [(done, 5) for done in range(1, 6)]
    asked = []
    with pytest.raises(StoppedError) as caught:
        scan(settings(tmp_path), watch=Watch(lambda: bool(asked.append(0)) or len(asked) == 3))
    assert caught.value.code == ExitCode.INTERRUPTED and len(asked) == 3


def test_the_fingerprint_follows_pixels_captions_and_buckets_but_not_the_place(tmp_path):
    for place in ("one", "two"):
        save(tmp_path / place, "a.png", caption="fox")
    one = scan(settings(tmp_path / "one")).fingerprint
    assert scan(settings(tmp_path / "two")).fingerprint == one
    assert scan(settings(tmp_path / "two", trigger="x")).fingerprint != one
    assert scan(settings(tmp_path / "two", resolution=32)).fingerprint != one
    save(tmp_path / "two", "a.png", seed=1)
    assert scan(settings(tmp_path / "two")).fingerprint != one
