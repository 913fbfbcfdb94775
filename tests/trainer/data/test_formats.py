"""Every format that Pillow knows is read with its pixels, or refused for a reason that is written down."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from trainer.data import formats, images
from trainer.data.images import is_picture
from trainer.data.problems import Unusable

WHITE = (255, 255, 255)
RNG = np.random.default_rng(7)
PICTURE = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
GREY = np.repeat(PICTURE[..., :1], 3, -1)
BITS = np.where(GREY > 127, 255, 0).astype(np.uint8)
SQUARE = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_every_format_is_read_or_refused_and_none_is_both():
    Image.init()
    known = set(Image.ID) - {"HEIF"}
    tables = [set(formats.BY_CONTENT), set(formats.BY_ENDING), set(formats.REFUSED)]
    assert set.union(*tables) == known
    assert sum(map(len, tables)) == len(known)


def in_palette(pixels):
    """An image of colours in steps of 51, for formats that have a palette: exact for such pixels."""
    return Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)


STEPS = (RNG.integers(0, 6, (24, 36, 3), dtype=np.uint8) * 51).astype(np.uint8)

WRITTEN_BY_PILLOW = {
    "tga": (Image.fromarray(PICTURE), PICTURE, {}),
    "pcx": (Image.fromarray(PICTURE), PICTURE, {}),
    "dib": (Image.fromarray(PICTURE), PICTURE, {}),
    "sgi": (Image.fromarray(PICTURE), PICTURE, {}),
    "im": (Image.fromarray(PICTURE), PICTURE, {}),
    "dds": (Image.fromarray(PICTURE), PICTURE, {}),
    "qoi": (Image.fromarray(PICTURE), PICTURE, {}),
    "ico": (Image.fromarray(SQUARE), SQUARE, {"sizes": [(32, 32)]}),
    "icns": (Image.fromarray(SQUARE), SQUARE, {}),
    "blp": (in_palette(STEPS), STEPS, {}),
    "msp": (Image.fromarray(BITS[..., 0]).convert("1"), BITS, {}),
}
"""What Pillow can also write."""


@pytest.mark.parametrize("suffix", WRITTEN_BY_PILLOW)
def test_what_pillow_writes_is_read_back(tmp_path, suffix):
    image, pixels, options = WRITTEN_BY_PILLOW[suffix]
    file = tmp_path / f"a.{suffix}"
    if suffix == "icns":  # holds sizes from 16 to 1024 and shows the largest: scaled up from this one
        image = image.resize((1024, 1024), Image.Resampling.NEAREST)
        pixels = pixels.repeat(32, 0).repeat(32, 1)
    image.save(file, **options)
    assert is_picture(file)
    decoded = images.decode(file, WHITE)
    assert decoded.pixels.shape == pixels.shape and np.abs(decoded.pixels.astype(int) - pixels).max() <= 1


def psd() -> bytes:
    height, width, _ = PICTURE.shape
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3)
    return header + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + PICTURE.transpose(2, 0, 1).tobytes()


def sun() -> bytes:
    height, width, _ = PICTURE.shape
    return struct.pack(">8I", 0x59A66A95, width, height, 24, PICTURE.size, 3, 0, 0) + PICTURE.tobytes()


def ftex() -> bytes:
    height, width, _ = PICTURE.shape
    return (
        b"FTEX" + struct.pack("<8i", 0, width, height, 1, 1, 1, 32, 0)[:28] + struct.pack("<i", PICTURE.size) + PICTURE.tobytes()
    )


def pixar() -> bytes:
    height, width, _ = PICTURE.shape
    head = bytearray(1024)
    head[:4] = b"\200\350\0\0"
    head[416:420], head[424:428] = struct.pack("<2H", height, width), struct.pack("<2H", 14, 2)
    return bytes(head) + PICTURE.tobytes()


def xpm() -> bytes:
    colours = np.unique(STEPS.reshape(-1, 3), axis=0)
    words = {tuple(colour): f"{index:03d}" for index, colour in enumerate(colours.tolist())}
    lines = [f'"{STEPS.shape[1]} {STEPS.shape[0]} {len(words)} 3",']
    lines += [f'"{word} c #{red:02x}{green:02x}{blue:02x}",' for (red, green, blue), word in words.items()]
    lines += ['"' + "".join(words[tuple(pixel)] for pixel in row) + '",' for row in STEPS.tolist()]
    return "\n".join(["/* XPM */", "static char *a[] = {", *lines, "};"]).encode()


def fli() -> bytes:
    """One frame: 256 greys as palette, then the pixels as they are."""
    height, width, _ = GREY.shape
    palette = struct.pack("<HBB", 1, 0, 0) + np.arange(256, dtype=np.uint8).repeat(3).tobytes()
    palette = struct.pack("<IH", 6 + len(palette), 4) + palette
    pixels = struct.pack("<IH", 6 + width * height, 16) + GREY[..., 0].tobytes()
    frame = struct.pack("<IHH8x", 16 + len(palette) + len(pixels), 0xF1FA, 2) + palette + pixels
    head = struct.pack("<I5HHHI", 128 + len(frame), 0xAF12, 1, width, height, 8, 3, 0, 70)
    return head + bytes(128 - len(head)) + frame


def dcx(tmp_path) -> bytes:
    Image.fromarray(PICTURE).save(tmp_path / "page.pcx")
    return struct.pack("<III", 0x3ADE68B1, 12, 0) + (tmp_path / "page.pcx").read_bytes()


def cur(tmp_path) -> bytes:
    Image.fromarray(SQUARE).save(tmp_path / "a.ico", sizes=[(32, 32)], bitmap_format="bmp")
    data = (tmp_path / "a.ico").read_bytes()
    return data[:2] + b"\2" + data[3:]


WRITTEN_BY_HAND = {
    "psd": (psd, PICTURE),
    "ras": (sun, PICTURE),
    "ftc": (ftex, PICTURE),
    "pxr": (pixar, PICTURE),
    "xpm": (xpm, STEPS),
    "flc": (fli, GREY),
    "dcx": (dcx, PICTURE),
    "cur": (cur, SQUARE),
}


@pytest.mark.parametrize("suffix", WRITTEN_BY_HAND)
def test_what_pillow_only_reads_has_its_pixels(tmp_path, suffix):
    make, pixels = WRITTEN_BY_HAND[suffix]
    (tmp_path / f"a.{suffix}").write_bytes(make(tmp_path) if make in (dcx, cur) else make())
    decoded = images.decode(tmp_path / f"a.{suffix}", WHITE)
    assert np.array_equal(decoded.pixels, pixels)


def test_photo_cd(tmp_path):
    """A base image of 768x512 in one grey: Photo CD's luma is the brightness over 1.3584, its neutral chroma 156 and 137."""
    head = bytearray(96 * 2048)
    head[2048:2052] = b"PCD_"
    rows = bytes([100]) * (768 * 2) + bytes([156]) * 384 + bytes([137]) * 384
    (tmp_path / "a.pcd").write_bytes(bytes(head) + rows * 256)
    pixels = images.decode(tmp_path / "a.pcd", WHITE).pixels
    assert pixels.shape == (512, 768, 3) and np.ptp(pixels.astype(int)) <= 2
    assert abs(int(pixels[0, 0, 0]) - round(100 * 1.3584)) <= 1


def test_formats_without_a_mark_claim_no_file_of_another_name(tmp_path):
    """TGA has no first bytes of its own: under any other ending such a file is not taken for a picture."""
    Image.fromarray(PICTURE).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(Unusable, match="is not a picture"):
        images.decode(tmp_path / "a.png", WHITE)


# HEIC


def heic(file, pixels=PICTURE, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=-1, chroma=444, matrix_coefficients=0, **options)


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg", "a"])
def test_heic_has_its_pixels(tmp_path, name):
    heic(tmp_path / name)
    decoded = images.decode(tmp_path / name, WHITE)
    assert decoded.pixels.shape == PICTURE.shape and np.abs(decoded.pixels.astype(int) - PICTURE).max() <= 1


def test_heic_is_upright_and_its_alpha_is_kept(tmp_path):
    alpha = RNG.integers(0, 256, PICTURE.shape[:2], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.ascontiguousarray(np.rot90(np.dstack([PICTURE, alpha]), 1))
    heic(tmp_path / "a.heic", turned, exif=exif.tobytes())
    decoded = images.decode(tmp_path / "a.heic", (0, 0, 0))
    assert np.abs(decoded.alpha.astype(int) - alpha).max() <= 1
    expected = np.round(PICTURE * (alpha[..., None] / 255))
    assert np.abs(decoded.pixels - expected).max() <= 2  # one from the file, one from the rounding over the background


def test_damaged_heic_says_so(tmp_path):
    heic(tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(Unusable, match="damaged"):
        images.decode(tmp_path / "a.heic", WHITE)


def test_without_the_extra_heic_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.reads_heif.cache_clear()
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    try:
        with pytest.raises(Unusable, match=r"is HEIC, which needs an extra: python -m pip install pillow-heif"):
            images.decode(tmp_path / "a.heic", WHITE)
    finally:
        formats.reads_heif.cache_clear()
