"""Which of the formats that Pillow knows are opened, which are not and why. Every one is in exactly one of the three tables.

A format is told by its content where its first bytes are its own. Those with a weak mark or none would claim the damaged files
of others, so they are tried only where the file's ending names them. HEIC needs the extra pillow-heif.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

# fmt: off
BY_CONTENT = (
    "PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "PSD", "QOI", "DDS", "ICNS", "XPM", "SUN", "BLP",
    "FTEX",
)
BY_ENDING = {
    "TGA": (".tga", ".icb", ".vda", ".vst"), "ICO": (".ico",), "CUR": (".cur",), "PCX": (".pcx",), "DCX": (".dcx",),
    "DIB": (".dib",), "SGI": (".sgi", ".rgb", ".rgba", ".bw"), "IM": (".im",), "MSP": (".msp",),
    "PIXAR": (".pxr",), "PCD": (".pcd",), "FLI": (".fli", ".flc"),
}
REFUSED = {
    "EPS": "a program for a printer: Pillow would start Ghostscript on it",
    "WMF": "drawing commands, which only Windows can carry out",
    "FITS": "measurements whose black and white are not known",
    "SPIDER": "measurements whose black and white are not known",
    "MCIDAS": "measurements whose black and white are not known",
    "BUFR": "weather data, which Pillow names but does not decode",
    "GRIB": "weather data, which Pillow names but does not decode",
    "HDF5": "scientific data, which Pillow names but does not decode",
    "MPEG": "a film, which Pillow names but does not decode",
    "GBR": "a brush of GIMP: a shape to paint with",
    "XBM": "a stencil without colours: X draws its ones black, Pillow white",
    "XVTHUMB": "a thumbnail in 256 fixed colours, not the picture itself",
    "IPTC": "a newswire's envelope around other formats",
    "IMT": "a format without a mark or an ending to tell it by",
}
PICTURES = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".avifs",
    ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".psd", ".qoi", ".dds", ".icns",
    ".xpm", ".ras", ".blp", ".ftc", ".ftu", ".heic", ".heics", ".heif", ".heifs", ".hif",
    *(ending for endings in BY_ENDING.values() for ending in endings),
))
"""Endings of files that are meant as pictures and read here."""
OTHER_PICTURES = frozenset((
    ".jxl", ".svg", ".eps", ".ps", ".ai", ".pdf", ".exr", ".hdr", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    ".xcf", ".kra", ".wmf", ".emf", ".fit", ".fits", ".xbm",
))
"""Pictures to a person, but not read here: leaving them out in silence would be wrong."""
# fmt: on

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def candidates(path: Path) -> tuple[str, ...]:
    """The formats that this file may be opened as."""
    suffix = path.suffix.lower()
    named = tuple(name for name, endings in BY_ENDING.items() if suffix in endings)
    return (*BY_CONTENT, *named, *(("HEIF",) if _is_heif(path) and reads_heif() else ()))


@cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed; it is imported only here, once a HEIC file is met."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return "HEIF" in Image.OPEN


def _is_heif(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(12)
    return start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS
