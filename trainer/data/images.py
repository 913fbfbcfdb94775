"""Pictures in: every mode is decoded on purpose, none by chance. Out: upright 8-bit sRGB, and a note of what was done."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from trainer.data.buckets import Box, Size, crop_box
from trainer.data.formats import candidates, reads_heif
from trainer.data.problems import Unusable
from trainer.errors import InputError

Pixels = NDArray[np.uint8]
"""[height, width, 3], sRGB."""

MAX_PIXELS = 100_000_000
LARGE = 25_000_000
"""Pixels above which pictures are decoded one at a time, so that several threads do not multiply the memory."""
_ONE_LARGE = threading.Lock()

# Pillow refuses only twice its limit and warns below it; ``_open`` refuses at the limit itself, before any decoding.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Its warnings about damaged metadata concern no pixel.
warnings.filterwarnings("ignore", module=r"PIL\.")

ONE_PICTURE = ("MPO", "PSD", "ICNS")
"""Formats whose further frames are previews, layers or other sizes of the same picture."""

ANIMATED = "animated"
TRANSPARENT = "transparent"
CMYK = "cmyk"
PROFILE = "profile"
EXIF = "exif"

_HEIF = "is HEIC, which needs an extra: python -m pip install pillow-heif, or save it as PNG or JPEG"
_OTHER_CONTENT = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the picture itself: fetch it with 'git lfs pull'"),
    (0, b"<!DOCTYPE", "is a web page, not a picture"),
    (0, b"<html", "is a web page, not a picture"),
    (0, b"<svg", "is SVG: save it as PNG"),
    (0, b"<?xml", "is XML or SVG: save it as PNG"),
    (0, b"%PDF", "is a PDF: save its picture as PNG"),
    (0, b"PK\x03\x04", "is a ZIP archive: unpack it"),
    (0, b"%!PS", "is PostScript: save it as PNG"),
    (4, b"ftyphe", _HEIF),
    (4, b"ftypmif1", _HEIF),
    (4, b"ftypmsf1", _HEIF),
    (4, b"ftypavi", "is AVIF, but damaged"),
    (4, b"ftyp", "is a film, not a picture"),
)
_NO_RANGE = "has {} pixels, whose black and white are not known: save it as 8-bit or 16-bit PNG"


@dataclass(frozen=True)
class Decoded:
    """One picture and what was done to it: ``ANIMATED``, ``TRANSPARENT``, ``CMYK``, ``PROFILE``, ``EXIF``."""

    pixels: Pixels
    alpha: NDArray[np.uint8]
    """[height, width]: 255 where the picture is opaque."""
    remarks: frozenset[str]

    @property
    def size(self) -> Size:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def sha256(self) -> str:
        """Hash of size and pixels."""
        digest = hashlib.sha256(b"%dx%d\n" % self.size)
        digest.update(self.pixels.data)
        return digest.hexdigest()


def colour(name: str) -> tuple[int, int, int]:
    """``white`` or ``#ffffff`` as three bytes. Raises ``InputError`` for anything else."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        fix = "give a colour such as white, black or #8080ff"
        raise InputError(f"data.background = {name!r} is no colour", fix) from error


def decode(path: Path, background: tuple[int, int, int]) -> Decoded:
    """The whole picture, upright, over ``background`` where it is transparent. Raises ``Unusable`` with the reason."""
    try:
        with _open(path) as image, _ONE_LARGE if image.width * image.height > LARGE else nullcontext():
            animated = image.format not in ONE_PICTURE and getattr(image, "is_animated", False)
            remarks = {ANIMATED} if animated else set()
            image.load()
            upright = _narrow(_upright(image, remarks), image.format)
            pixels, alpha = _flatten(_to_srgb(upright, remarks), background, remarks)
    except Unusable:
        raise
    except UnidentifiedImageError as error:
        raise Unusable(_what_it_is(path)) from error
    except Image.DecompressionBombError as error:
        raise Unusable(f"has more than {MAX_PIXELS // 10**6} million pixels: make it smaller") from error
    except OSError as error:
        if error.errno:
            raise Unusable(f"cannot be read: {error.strerror}") from error
        raise Unusable(f"cannot be decoded ({error}): it is damaged") from error
    except Exception as error:  # Pillow's readers raise anything at all on damaged files
        raise Unusable(f"cannot be decoded ({error or type(error).__name__}): it is damaged") from error
    return Decoded(pixels, alpha, frozenset(remarks))


def fit(pixels: Pixels, bucket: Size, box: Box | None = None) -> Pixels:
    """Crop to ``box``, or to the largest centred part of the bucket's aspect, and scale to ``bucket`` (Lanczos) at once."""
    size = pixels.shape[1], pixels.shape[0]
    resized = Image.fromarray(pixels).resize(bucket, Image.Resampling.LANCZOS, box=box or crop_box(size, bucket))
    return np.array(resized)


def to_tensor(pixels: Pixels, mirrored: bool = False) -> Tensor:
    """``[3, height, width]`` float32 in -1..1: ``x / 127.5 - 1``; mirrored left to right where asked."""
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return tensor.flip(-1) if mirrored else tensor


def is_picture(path: Path) -> bool:
    """Whether the content, whatever the name, starts as a picture of a known format."""
    try:
        with Image.open(path, formats=candidates(path)):
            return True
    except Exception:
        return False


def _open(path: Path) -> Image.Image:
    """Open, with the size checked before anything is decoded and PNG's checksums, which decoding skips, verified."""
    formats = candidates(path)
    with Image.open(path, formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format == "PNG":
            image.verify()
    return Image.open(path, formats=formats)


def _upright(image: Image.Image, remarks: set[str]) -> Image.Image:
    """Turned as its EXIF orientation says; as it is, with a remark, where the EXIF block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF reader raises anything at all on damaged blocks
        remarks.add(EXIF)
        return image


def _narrow(image: Image.Image, image_format: str | None) -> Image.Image:
    """More than 8 bits a channel to 8: 65535 becomes 255, so 16-bit values are divided by 257."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image_format == "PPM"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise Unusable(_NO_RANGE.format("float" if image.mode == "F" else "32-bit integer"))
    return image


def _to_srgb(image: Image.Image, remarks: set[str]) -> Image.Image:
    """RGB or RGBA in sRGB. A colour profile is applied; without one CMYK is converted by the plain formula."""
    profile = None if image.mode == "LAB" else image.info.get("icc_profile")  # Lab says itself what its colours are
    if image.mode in ("PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        image = image.convert("RGB")
    if profile:
        image = _apply(profile, image, remarks)
    if image.mode == "CMYK":
        remarks.add(CMYK)
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _apply(profile: bytes, image: Image.Image, remarks: set[str]) -> Image.Image:
    """``image`` brought from its colour profile to sRGB; unchanged, with a remark, where the profile does not fit it."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in (source.profile.profile_description or "").lower():
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        changed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        remarks.add(PROFILE)
        return image
    return changed or image


def _flatten(image: Image.Image, background: tuple[int, int, int], remarks: set[str]) -> tuple[Pixels, NDArray[np.uint8]]:
    """RGB pixels, ``alpha * picture + (1 - alpha) * background``, and alpha."""
    if image.mode != "RGBA":
        return np.array(image), np.broadcast_to(np.uint8(255), (image.height, image.width))
    alpha = np.array(image.getchannel("A"))
    if alpha.min() < 255:
        remarks.add(TRANSPARENT)
    image = Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return np.array(image), alpha


def _what_it_is(path: Path) -> str:
    """Why a file that no reader knows is no picture."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if not start:
        return "is empty (0 bytes)"
    for offset, magic, reason in _OTHER_CONTENT:
        if start[offset:].lower().startswith(magic.lower()):
            return "is HEIC, but damaged" if reason is _HEIF and reads_heif() else reason
    return f"is not a picture: it starts with {start[:12]!r}"
