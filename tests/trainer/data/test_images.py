"""Decoding against arrays computed by hand: at most 1/255 apart, and exactly where the format is lossless."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.data import images
from trainer.data.problems import Unusable
from trainer.errors import InputError

WHITE, GREY = (255, 255, 255), (10, 100, 200)
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def decode(tmp_path, image, suffix="png", background=WHITE, **options):
    file = tmp_path / f"a.{suffix}"
    image.save(file, **options)
    return images.decode(file, background)


def over(pixels, alpha, background):
    """The definition of putting a picture over a colour."""
    share = alpha[..., None] / 255
    return np.round(pixels * share + np.array(background) * (1 - share))


def assert_close(pixels, expected):
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    assert np.abs(pixels.astype(float) - expected).max() <= 1


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("bmp", {}),
        ("tif", {}),
        ("ppm", {}),
        ("webp", {"lossless": True}),
        ("jp2", {"irreversible": False}),
    ],
)
def test_lossless_formats_give_their_pixels(tmp_path, suffix, options):
    decoded = decode(tmp_path, Image.fromarray(PICTURE), suffix, **options)
    assert np.array_equal(decoded.pixels, PICTURE)
    assert decoded.size == (36, 24) and not decoded.remarks


@pytest.mark.parametrize(("suffix", "worst"), [("jpg", 6), ("webp", 12), ("avif", 12)])
def test_lossy_formats_give_nearly_their_pixels(tmp_path, suffix, worst):
    smooth = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 3, np.arange(64) * 3, 90), -1).astype(np.uint8)
    decoded = decode(tmp_path, Image.fromarray(smooth), suffix, quality=95)
    assert np.abs(decoded.pixels.astype(int) - smooth).max() <= worst


STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_turns_the_picture_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](PICTURE))
    assert np.array_equal(decode(tmp_path, Image.fromarray(stored), exif=exif).pixels, PICTURE)


def test_damaged_exif_is_remarked_and_costs_no_picture(tmp_path):
    decoded = decode(tmp_path, Image.fromarray(PICTURE), exif=b"Exif\0\0II\xff\xff\x08\0\0\0")
    assert np.array_equal(decoded.pixels, PICTURE)
    assert decoded.remarks == {images.EXIF}


def test_sixteen_bits_are_divided_by_257(tmp_path):
    grey = np.repeat(np.round(RAMP / 257)[..., None], 3, -1)
    assert np.array_equal(decode(tmp_path, Image.fromarray(RAMP), "png").pixels, grey)
    assert np.array_equal(decode(tmp_path, Image.fromarray(RAMP), "tif").pixels, grey)
    (tmp_path / "b.pgm").write_bytes(b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes())
    assert np.array_equal(images.decode(tmp_path / "b.pgm", WHITE).pixels, grey)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(header: tuple, data: bytes, *more: bytes) -> bytes:
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
    return start + b"".join(more) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_png(tmp_path):
    colour = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    (tmp_path / "a.png").write_bytes(png((8, 8, 16, 2, 0, 0, 0), rows))
    assert_close(images.decode(tmp_path / "a.png", WHITE).pixels, np.round(colour / 257))


def test_sixteen_bit_colour_tiff(tmp_path):
    """A TIFF by hand: the header, the pixels, then the directory."""
    colour = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    place = 8 + colour.nbytes
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, place + 126), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, colour.nbytes), (284, 3, 1, 1)]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    data = struct.pack("<2sHI", b"II", 42, place) + colour.astype("<u2").tobytes() + table + struct.pack("<3H", 16, 16, 16)
    (tmp_path / "a.tif").write_bytes(data)
    assert_close(images.decode(tmp_path / "a.tif", WHITE).pixels, np.round(colour / 257))


@pytest.mark.parametrize("size", [(30000, 100), (100, 30000), (1, 1)])
def test_sizes_far_from_usual(tmp_path, size):
    pixels = np.stack(np.broadcast_arrays(np.arange(size[0]) % 251, np.arange(size[1])[:, None] % 241, 9), -1).astype(np.uint8)
    decoded = decode(tmp_path, Image.fromarray(pixels))
    assert decoded.size == size and np.array_equal(decoded.pixels, pixels)


@pytest.mark.parametrize("background", [WHITE, GREY])
def test_alpha_is_put_over_the_background(tmp_path, background):
    alpha = RNG.integers(0, 256, PICTURE.shape[:2], dtype=np.uint8)
    decoded = decode(tmp_path, Image.fromarray(np.dstack([PICTURE, alpha])), background=background)
    assert_close(decoded.pixels, over(PICTURE, alpha, background))
    assert decoded.remarks == {images.TRANSPARENT}
    grey = np.ascontiguousarray(PICTURE[..., 0])
    decoded = decode(tmp_path, Image.fromarray(np.dstack([grey, alpha]), "LA"), background=background)
    assert_close(decoded.pixels, over(np.repeat(grey[..., None], 3, -1), alpha, background))


def test_an_alpha_channel_without_transparency_is_no_remark(tmp_path):
    decoded = decode(tmp_path, Image.fromarray(PICTURE).convert("RGBA"))
    assert np.array_equal(decoded.pixels, PICTURE) and not decoded.remarks


def palette(indices: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    return image, colours[indices]


def test_palettes_with_and_without_transparency(tmp_path):
    indices = RNG.integers(0, 256, (20, 20), dtype=np.uint8)
    image, colours = palette(indices)
    assert np.array_equal(decode(tmp_path, image).pixels, colours)
    assert np.array_equal(decode(tmp_path, image, "gif").pixels, colours)
    alpha = RNG.integers(0, 256, 256, dtype=np.uint8)
    decoded = decode(tmp_path, image, transparency=alpha.tobytes(), background=GREY)
    assert_close(decoded.pixels, over(colours, alpha[indices], GREY))
    hole = np.where(indices == 7, 0, 255).astype(np.uint8)
    assert_close(decode(tmp_path, image, "gif", transparency=7, background=GREY).pixels, over(colours, hole, GREY))


@pytest.mark.parametrize(("mode", "key"), [("RGB", (10, 20, 30)), ("L", 77), ("1", 0)])
def test_a_transparent_colour_shows_the_background(tmp_path, mode, key):
    image = Image.new(mode, (4, 4), key)
    image.putpixel((0, 0), 255 if mode != "RGB" else (255, 255, 255))
    expected = np.full((4, 4, 3), GREY)
    expected[0, 0] = 255
    assert np.array_equal(decode(tmp_path, image, transparency=key, background=GREY).pixels, expected)


def test_grey_and_one_bit(tmp_path):
    grey = np.ascontiguousarray(PICTURE[..., 0])
    assert np.array_equal(decode(tmp_path, Image.fromarray(grey)).pixels, np.repeat(grey[..., None], 3, -1))
    bits = grey > 127
    assert np.array_equal(decode(tmp_path, Image.fromarray(bits)).pixels, np.repeat(bits[..., None] * 255, 3, -1))


def test_cmyk_is_converted_by_the_plain_formula(tmp_path):
    cmyk = RNG.integers(0, 256, (9, 9, 4), dtype=np.uint8)
    decoded = decode(tmp_path, Image.fromarray(cmyk, "CMYK"), "tif")
    assert_close(decoded.pixels, np.round((255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255))
    assert decoded.remarks == {images.CMYK}


def test_cmyk_in_a_jpeg_is_not_inverted(tmp_path):
    """Adobe writes its JPEGs inverted, which Pillow undoes: one colour, so that the file loses next to nothing."""
    colour = np.array([40, 90, 200, 30])
    decoded = decode(tmp_path, Image.new("CMYK", (16, 16), tuple(colour.tolist())), "jpg", quality=100)
    assert_close(decoded.pixels, np.broadcast_to(np.round((255 - colour[:3]) * (255 - colour[3]) / 255), (16, 16, 3)))


@pytest.mark.parametrize(("mode", "kind"), [("F", "float"), ("I", "32-bit integer")])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode, kind):
    with pytest.raises(Unusable, match=f"has {kind} pixels, whose black and white are not known"):
        decode(tmp_path, Image.new(mode, (8, 8), 1), "tif")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_of_an_animation_is_used_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if suffix == "webp" else {}
    decoded = decode(tmp_path, frames[0], suffix, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decoded.pixels, np.full((16, 16, 3), (255, 0, 0)))
    assert decoded.remarks == {images.ANIMATED}


def linear_profile() -> bytes:
    """An ICC profile with sRGB's primaries (adapted to D50) and a straight tone curve, written by hand."""
    fixed = lambda value: struct.pack(">i", round(value * 65536))  # noqa: E731
    xyz = lambda *values: b"XYZ \0\0\0\0" + b"".join(map(fixed, values))  # noqa: E731
    text = b"linear\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.43607, 0.22249, 0.01392),
        b"gXYZ": xyz(0.38515, 0.71687, 0.09708),
        b"bXYZ": xyz(0.14307, 0.06061, 0.71410),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">I", 0)),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head + bytes(128 - len(head)) + table + body


def test_a_colour_profile_is_applied(tmp_path):
    linear = PICTURE / 255
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    decoded = decode(tmp_path, Image.fromarray(PICTURE), icc_profile=linear_profile())
    assert_close(decoded.pixels, np.round(encoded * 255))
    assert not decoded.remarks


def test_a_damaged_profile_is_remarked_and_costs_no_picture(tmp_path):
    decoded = decode(tmp_path, Image.fromarray(PICTURE), icc_profile=b"no profile at all")
    assert np.array_equal(decoded.pixels, PICTURE)
    assert decoded.remarks == {images.PROFILE}


def test_a_profile_of_another_colour_space_is_remarked(tmp_path):
    decoded = decode(tmp_path, Image.new("L", (4, 4), 9), icc_profile=linear_profile())
    assert np.array_equal(decoded.pixels, np.full((4, 4, 3), 9))
    assert decoded.remarks == {images.PROFILE}


def encoded(suffix: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, suffix, **options)
    return stream.getvalue()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


PNG = encoded("PNG")
BROKEN = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "half a PNG": (PNG[: len(PNG) // 2], "damaged"),
    "PNG without its end": (PNG[:-12], "damaged"),
    "PNG with a flipped bit": (flipped(PNG, PNG.index(b"IDAT") + 99), r"checksum.*IDAT.*damaged"),
    "JPEG without its last bytes": (encoded("JPEG")[:-50], r"truncated.*damaged"),
    "half a BMP": (encoded("BMP")[:600], r"truncated.*damaged"),
    "half a GIF": (encoded("GIF")[:900], r"truncated.*damaged"),
    "half a TIFF": (encoded("TIFF")[:600], "damaged"),
    "half a WebP": (encoded("WEBP")[:200], "damaged"),
    "half an AVIF": (encoded("AVIF")[:300], "damaged"),
    "half a JPEG 2000": (encoded("JPEG2000")[:600], "damaged"),
    "web page": (b"<!DOCTYPE html><p>404", "is a web page"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
    "ZIP": (b"PK\x03\x04rest", "is a ZIP archive: unpack it"),
    "SVG": (b"<svg xmlns='x'/>", "is SVG: save it as PNG"),
    "film": (b"\0\0\0\x18ftypisom\0\0\0\0", "is a film"),
    "text": (b"hello there", "is not a picture: it starts with b'hello there'"),
    "101 MP": (png((10100, 10000, 8, 0, 0, 0, 0), b""), "has more than 100 million pixels: make it smaller"),
    "900 MP": (png((30000, 30000, 8, 2, 0, 0, 0), b""), "has more than 100 million pixels: make it smaller"),
    "2500 MP": (png((50000, 50000, 8, 0, 0, 0, 0), b""), "has more than 100 million pixels: make it smaller"),
    "text bomb": (png((1, 1, 8, 0, 0, 0, 0), b"\0\0", chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))), "too large"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript: save it as PNG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_decoded_is_refused_with_its_reason(tmp_path, name):
    data, reason = BROKEN[name]
    file = tmp_path / "a.png"
    file.write_bytes(data)
    with pytest.raises(Unusable, match=reason):
        images.decode(file, WHITE)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(Unusable, match="^cannot be read: No such file or directory$"):
        images.decode(tmp_path / "gone.png", WHITE)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_random_damage_ends_in_pixels_or_in_a_reason(tmp_path, suffix):
    draw, data = random.Random(suffix), encoded(suffix)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data[: draw.randrange(8, len(data)) if draw.random() < 0.3 else len(data)])
        for _ in range(draw.randrange(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            assert images.decode(tmp_path / "a", WHITE).pixels.ndim == 3
            outcomes.add("pixels")
        except Unusable as error:
            assert str(error)
            outcomes.add("reason")
    assert "reason" in outcomes


def test_equal_pixels_have_equal_hashes_whatever_the_format(tmp_path):
    image = Image.fromarray(PICTURE)
    one, other = decode(tmp_path, image, "png"), decode(tmp_path, image, "bmp")
    assert one.sha256 == other.sha256
    image.putpixel((5, 5), (1, 2, 3))
    assert decode(tmp_path, image).sha256 != one.sha256
    wide, tall = (decode(tmp_path, Image.new("RGB", size)).sha256 for size in ((2, 3), (3, 2)))
    assert wide != tall


def test_fit_at_the_same_scale_is_an_exact_crop():
    assert np.array_equal(images.fit(PICTURE, (36, 24)), PICTURE)
    assert np.array_equal(images.fit(PICTURE, (24, 24)), PICTURE[:, 6:30])
    assert np.array_equal(images.fit(PICTURE, (36, 12)), PICTURE[6:18])


def test_fit_covers_and_crops_as_two_steps_would():
    source = RNG.integers(0, 256, (100, 200, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(source).resize((128, 64), Image.Resampling.LANCZOS))
    assert_close(images.fit(source, (64, 64)), whole[:, 32:96].astype(float))


def test_fit_keeps_an_area_of_one_colour():
    assert np.array_equal(images.fit(np.full((333, 777, 3), 99, np.uint8), (96, 32)), np.full((32, 96, 3), 99))


def test_tensor_is_minus_one_to_one_and_mirrors_left_to_right():
    tensor = images.to_tensor(PICTURE)
    assert tensor.shape == (3, 24, 36) and tensor.dtype == torch.float32
    assert torch.equal(tensor, torch.from_numpy(PICTURE).permute(2, 0, 1) / 127.5 - 1)
    assert images.to_tensor(np.array([[[0, 255, 51]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert torch.equal(images.to_tensor(PICTURE, mirrored=True), images.to_tensor(np.fliplr(PICTURE)))


def test_colours():
    assert images.colour("white") == WHITE
    assert images.colour("#0a64c8") == images.colour("#0a64c880") == GREY
    with pytest.raises(InputError, match="data.background = 'wihte' is no colour"):
        images.colour("wihte")


def test_content_tells_a_picture(tmp_path):
    (tmp_path / "a.download").write_bytes(PNG)
    (tmp_path / "b.bin").write_bytes(b"\0" * 99)
    assert images.is_picture(tmp_path / "a.download")
    assert not images.is_picture(tmp_path / "b.bin")
    assert not images.is_picture(tmp_path / "gone")
