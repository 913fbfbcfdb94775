"""Faults of pictures, each at several strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from bench.lint.pictures import KINDS, Pixels
from bench.lint.scene import SIDE, Scene, clean, jpeg, picture, pixels_of, spoilt, style, view
from trainer.lint.view import Picture

Change = Callable[[Pixels], Pixels]
KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}


def scaled(pixels: Pixels, factor: float) -> Pixels:
    """Another size."""
    image = Image.fromarray(pixels)
    size = round(image.width * factor), round(image.height * factor)
    return np.array(image.resize(size, Image.Resampling.LANCZOS))


def enlarged(pixels: Pixels, factor: float, kernel: str) -> Pixels:
    """Reduced, and brought back to its size."""
    small = Image.fromarray(scaled(pixels, 1 / factor))
    return np.array(small.resize((pixels.shape[1], pixels.shape[0]), KERNELS[kernel]))


def cropped(pixels: Pixels, share: float) -> Pixels:
    """Without ``share`` of each side at the left and the top, at its old size."""
    cut = round(pixels.shape[0] * share)
    return np.array(Image.fromarray(pixels[cut:, cut:]).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.LANCZOS))


COPIES: dict[str, Change] = {
    "JPEG 30": lambda pixels: jpeg(pixels, 30),
    "half the size": lambda pixels: scaled(pixels, 0.5),
    "mirrored": lambda pixels: pixels[:, ::-1].copy(),
    "mirrored, 0.6 of the size, JPEG 60": lambda pixels: jpeg(scaled(pixels[:, ::-1], 0.6), 60),
    "brighter by a fifth": lambda pixels: np.array(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(1.2)),
    "cropped by 2 %": lambda pixels: cropped(pixels, 0.02),
}


def copies() -> Iterator[Scene]:
    """Near copies beside their originals, in the set and among the held-out pictures; exact copies."""
    originals = clean()[: len(KINDS)]
    for strength, change in COPIES.items():
        made = [
            picture(f"copy-of-{old.name}", change(pixels_of(old.name.partition("-")[0], 0)), old.caption) for old in originals
        ]
        names = frozenset(p.name for p in (*made, *originals))
        yield Scene("near-duplicate", strength, view([*clean(), *made]), names, frozenset(("small", "upscaled", "blurred")))
        yield Scene("leak", strength, view(clean(), held_out=tuple(made)), names)
    again = [replace(old, name=f"copy-of-{old.name}") for old in originals]
    names = frozenset(p.name for p in (*again, *originals))
    yield Scene("duplicate", "the same pixels", view([*clean(), *again]), names)
    yield Scene("leak", "the same pixels", view(clean(), held_out=tuple(again)), names)


def sizes() -> Iterator[Scene]:
    """Too few pixels, and buckets that fill no batch."""
    for share in (0.9, 0.6, 0.4):
        scene = spoilt("small", f"{share:g} of the side", partial(scaled, factor=share))
        small = [replace(p, bucket=(64, 64)) if p.name in scene.faults else p for p in scene.view.pictures]
        yield replace(scene, view=view(small))
    odd = [replace(p, size=(640, 320), bucket=(448, 192)) if p.name.endswith("-3.png") else p for p in clean()]
    names = frozenset(p.name for p in odd if p.bucket != (SIDE, SIDE))
    yield Scene("remainder", "6 of 24, batch 8", view(odd, batch_size=8), names)


def softness() -> Iterator[Scene]:
    """Enlarged and blurred pictures. An enlarged one that shows no trace of it may be called blurred, which it is."""
    for factor in (1.5, 2, 3, 4):
        for kernel in KERNELS:
            change = partial(enlarged, factor=factor, kernel=kernel)
            yield spoilt("upscaled", f"{factor:g} times, {kernel}", change, ["blurred"])
    change = partial(enlarged, factor=3, kernel="bicubic")
    yield spoilt("upscaled", "3 times, bicubic, JPEG 95", lambda pixels: jpeg(change(pixels), 95), ["blurred"])
    yield spoilt("upscaled", "2 times, pixels repeated", lambda pixels: scaled(pixels, 0.5).repeat(2, 0).repeat(2, 1))
    for radius in (1.5, 2, 3, 5):
        yield spoilt("blurred", f"Gaussian, {radius:g} pixels", partial(_filtered, kernel=ImageFilter.GaussianBlur(radius)))
    yield spoilt("blurred", "Gaussian, 2 pixels, JPEG 85", lambda p: jpeg(_filtered(p, ImageFilter.GaussianBlur(2)), 85))
    yield spoilt("blurred", "disc of 9 pixels", _out_of_focus)
    resaved = partial(enlarged, factor=4, kernel="bicubic")
    yield spoilt("blurred", "enlarged 4 times, then JPEG 90", lambda pixels: jpeg(resaved(pixels), 90), ["upscaled"])


def frames() -> Iterator[Scene]:
    """Bars and frames."""
    for share, colour in ((0.02, "black"), (0.08, "white"), (0.2, "black")):
        for sides in ("top and bottom", "left and right", "all sides"):
            change = partial(_framed, share=share, colour=colour, sides=sides)
            name = f"{share:.0%}, {colour}, {sides}"
            yield spoilt("border", name, lambda p, change=change: jpeg(change(p), 85), ["overlay"])
    change = partial(_framed, share=0.05, colour="#406080", sides="all sides")
    yield spoilt("border", "5%, #406080, all sides", change, ["overlay"])


def overlays() -> Iterator[Scene]:
    """Text on single pictures; one logo on several."""
    for words, size, alpha, where in (
        ("© Jane Doe 2024", 0.05, 1.0, (0.5, 0.92)),
        ("www.example-stock.com", 0.06, 1.0, (0.05, 0.9)),
        ("SAMPLE IMAGE", 0.12, 0.8, (0.12, 0.4)),
        ("PREVIEW ONLY", 0.1, 0.6, (0.1, 0.5)),
        ("Once upon a time", 0.08, 1.0, (0.05, 0.04)),
        ("2019-07-14 18:32", 0.06, 1.0, (0.45, 0.9)),
    ):
        change = partial(_written, words=words, size=size, alpha=alpha, where=where)
        yield spoilt("text", f"{words!r}, {size:.0%} high, {alpha:.0%} opaque", change, ["overlay"])
        yield spoilt(
            "text",
            f"{words!r}, {size:.0%} high, {alpha:.0%} opaque, JPEG 85",
            lambda p, change=change: jpeg(change(p), 85),
            ["overlay"],
        )
    for alpha in (1.0, 0.7, 0.5):
        for where in ((0.83, 0.84), (0.02, 0.02)):
            change = partial(_stamped, alpha=alpha, where=where)
            yield spoilt(
                "overlay", f"logo, {alpha:.0%} opaque, {'bottom right' if where[0] > 0.5 else 'top left'}", change, ["text"]
            )


def outliers() -> Iterator[Scene]:
    """One or two pictures of another look in a set of twelve."""
    names = ("blueprint", "duotone", "ink")
    for index, name in enumerate(names):
        others = [other for other in names if other != name]
        for count in (1, 2):
            for other in others:
                strangers = [replace(p, name=f"stranger-{p.name}") for p in style(other)[index : index + count]]
                yield _strange(f"{count} {other} in {name}", name, strangers)
        strangers = [picture("stranger.png", pixels_of("leaves", index))]
        yield _strange(f"1 photograph in {name}", name, strangers)
        grey = np.array(Image.fromarray(pixels_of("portrait", index)).convert("L").convert("RGB"))
        yield _strange(f"1 grey photograph in {name}", name, [picture("stranger.png", grey)])


def _strange(strength: str, name: str, strangers: list[Picture]) -> Scene:
    """The set without as many of its own, and the strangers under its trigger."""
    trigger = style(name)[0].trigger
    given = [replace(p, captions=(f"{trigger}, thing {i}",), trigger=trigger) for i, p in enumerate(strangers)]
    pictures = [*style(name)[: 12 - len(given)], *given]
    return Scene("outlier", strength, view(pictures, resolution=256), frozenset(p.name for p in given))


def _filtered(pixels: Pixels, kernel: ImageFilter.Filter) -> Pixels:
    return np.array(Image.fromarray(pixels).filter(kernel))


def _out_of_focus(pixels: Pixels) -> Pixels:
    """The mean of a disc of nine pixels across, as a lens draws a point out of focus."""
    y, x = np.mgrid[-4:5, -4:5]
    places = np.argwhere(x**2 + y**2 <= 18) - 4
    return np.mean([np.roll(pixels, place, (0, 1)) for place in places.tolist()], 0).astype(np.uint8)


def _framed(pixels: Pixels, share: float, colour: str, sides: str) -> Pixels:
    """Bars over the picture's edges."""
    image = Image.fromarray(pixels)
    bar, (width, height) = round(share * SIDE), image.size
    pen = ImageDraw.Draw(image)
    if sides != "left and right":
        pen.rectangle((0, 0, width, bar - 1), fill=colour)
        pen.rectangle((0, height - bar, width, height), fill=colour)
    if sides != "top and bottom":
        pen.rectangle((0, 0, bar - 1, height), fill=colour)
        pen.rectangle((width - bar, 0, width, height), fill=colour)
    return np.array(image)


def _written(pixels: Pixels, words: str, size: float, alpha: float, where: tuple[float, float]) -> Pixels:
    """White letters with a dark rim, as subtitles and watermarks have, over the picture."""
    image = Image.fromarray(pixels)
    layer = image.copy()
    font = ImageFont.load_default(size * SIDE * 1.2)
    place = where[0] * image.width, where[1] * image.height - size * SIDE * 0.2
    ImageDraw.Draw(layer).text(place, words, font=font, fill="white", stroke_width=1, stroke_fill="black")
    return np.array(Image.blend(image, layer, alpha))


def _stamped(pixels: Pixels, alpha: float, where: tuple[float, float]) -> Pixels:
    """A round logo with a star."""
    image = Image.fromarray(pixels)
    layer = image.copy()
    pen = ImageDraw.Draw(layer)
    left, top, side = where[0] * SIDE, where[1] * SIDE, 0.14 * SIDE
    pen.ellipse((left, top, left + side, top + side), fill="#f8f8f8", outline="#101010", width=3)
    angles = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2, 0.2, 0.42) * side
    star = np.stack([left + side / 2 + reach * np.sin(angles), top + side / 2 - reach * np.cos(angles)], 1)
    pen.polygon([tuple(point) for point in star.tolist()], fill="#c02020")
    return np.array(Image.blend(image, layer, alpha))
