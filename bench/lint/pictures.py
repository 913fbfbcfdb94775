"""Clean pictures of several kinds, drawn from a seed: what no rule of the lint may complain of.

Everything is drawn at twice its size and reduced, so that edges are as sharp as a camera's or a painter's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from trainer.conditioning import Size

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]


def draw(kind: str, seed: int, size: Size = (320, 320)) -> Pixels:
    """A picture of ``size`` (width, height): equal for equal arguments."""
    generator = np.random.default_rng([seed, *kind.encode()])
    doubled = KINDS[kind](generator, (size[0] * 2, size[1] * 2))
    return np.array(doubled.resize(size, Image.Resampling.LANCZOS))


def _colours(generator: Generator, count: int) -> list[Colour]:
    """A palette: shades around one random hue axis, so that pictures of one seed belong together."""
    base, axis = generator.uniform(40, 215, 3), generator.normal(0, 60, 3)
    steps = generator.uniform(-1.3, 1.3, count)
    return [tuple(int(v) for v in np.clip(base + axis * s + generator.normal(0, 18, 3), 0, 255)) for s in steps]  # type: ignore[misc]


def _blob(generator: Generator, centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """A closed outline: a circle bent by three random waves."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    bend = sum(generator.normal(0, 0.16 / k) * np.cos(k * angle + generator.uniform(0, 6)) for k in (2, 3, 5))
    reach = radius * (1 + bend)
    return [(centre[0] + r * np.cos(a), centre[1] + r * np.sin(a)) for a, r in zip(angle, reach, strict=True)]


def _grain(image: Image.Image, generator: Generator, strength: float) -> Image.Image:
    noise = generator.normal(0, strength, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def leaves(generator: Generator, size: Size) -> Image.Image:
    """Discs of all sizes that hide each other: the statistics of a photograph (Lee, Mumford and Huang 2001)."""
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    for colour in _colours(generator, 700):
        radius = min(size) * 0.012 / (1 - generator.uniform(0, 0.96))
        x, y = generator.uniform(0, size[0]), generator.uniform(0, size[1])
        pen.polygon(_blob(generator, (x, y), radius), fill=colour)
    return _grain(image, generator, 8)


def landscape(generator: Generator, size: Size) -> Image.Image:
    """A sky and four ridges, each with its own grain."""
    width, height = size
    low, high = _colours(generator, 2)
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky = np.broadcast_to(np.array(high) * (1 - ramp) + np.array(low) * ramp, (height, width, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for level, colour in enumerate(_colours(generator, 4)):
        steps = generator.normal(0, 1, width) + np.repeat(generator.normal(0, 1.6, width // 40 + 1), 40)[:width]
        ridge = height * (0.35 + 0.16 * level) + np.cumsum(steps - steps.mean()) * height / 900
        pen.polygon([(0, height), *enumerate(ridge.tolist()), (width, height)], fill=colour)
        for _ in range(160):
            x, y = generator.uniform(0, width), generator.uniform(0, height)
            if y > ridge[int(x)]:
                pen.line((x, y, x + generator.normal(0, 9), y - generator.uniform(4, 40)), fill=_near(colour, generator), width=3)
    return _grain(image, generator, 6)


def _near(colour: Colour, generator: Generator) -> Colour:
    return tuple(int(v) for v in np.clip(np.array(colour) + generator.normal(0, 40), 0, 255).repeat(1)[:3])  # type: ignore[return-value]


def flat(generator: Generator, size: Size) -> Image.Image:
    """A flat illustration: one thing of a few plain shapes in the middle of a plain ground."""
    ground, *colours = _colours(generator, 9)
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    for index, colour in enumerate(colours):
        reach = min(size) * (0.34 - 0.035 * index)
        centre = [side / 2 + generator.normal(0, reach * 0.25) for side in size]
        pen.polygon(_blob(generator, (centre[0], centre[1]), reach), fill=colour)
    return image


def lines(generator: Generator, size: Size) -> Image.Image:
    """A pen drawing: open curves of several widths on paper."""
    paper, ink = (244, 240, 230), tuple(int(v) for v in generator.uniform(0, 90, 3))
    image = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(image)
    for _ in range(26):
        steps = np.cumsum(generator.normal(0, 1, (60, 2)), 0)
        points = np.array(size) * generator.uniform(0.15, 0.85, 2) + steps * min(size) * 0.02
        pen.line([tuple(point) for point in points.tolist()], fill=ink, width=int(generator.integers(3, 12)), joint="curve")
    return image


def pattern(generator: Generator, size: Size) -> Image.Image:
    """A fence, windows and tiles: equal things in rows, which are neither text nor borders."""
    ground, post, pane, *tiles = _colours(generator, 8)
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    pitch = int(generator.integers(36, 70))
    for row in range(0, size[1] // 2, pitch):
        for column in range(0, size[0], pitch):
            pen.rectangle(
                (column, row, column + pitch * 0.8, row + pitch * 0.8), fill=tiles[(row + column) // pitch % len(tiles)]
            )
    for column in range(int(pitch / 3), size[0], pitch):
        pen.rectangle((column, size[1] * 0.55, column + pitch * 0.35, size[1] * 0.8), fill=post)
    pen.ellipse((size[0] * 0.3, size[1] * 0.3, size[0] * 0.7, size[1] * 0.7), fill=pane)
    return _grain(image, generator, 4)


def portrait(generator: Generator, size: Size) -> Image.Image:
    """A sharp subject before a ground out of focus, as a fast lens takes it."""
    ground = leaves(generator, size).filter(ImageFilter.GaussianBlur(min(size) / 40))
    subject = leaves(generator, size)
    mask = Image.new("L", size)
    outline = _blob(generator, (size[0] / 2, size[1] * 0.6), min(size) * 0.3)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return Image.composite(subject, ground, mask)


KINDS: dict[str, Callable[[Generator, Size], Image.Image]] = {
    "leaves": leaves, "landscape": landscape, "flat": flat, "lines": lines, "pattern": pattern, "portrait": portrait,
}  # fmt: skip
