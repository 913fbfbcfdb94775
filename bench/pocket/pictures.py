"""Pictures of the concepts: fetched from npm as SVG, rendered, and packed into one atlas that ships.

A picture is a (64, 64, 4) float32 array, 0..1, colours premultiplied by alpha, so laying it on a ground is linear
and can be done after the reduction to 64 pixels.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import all_concepts

SIZE = 64
RENDER = 256
SETS = {
    "noto": "@iconify-json/noto@1.2.9",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "ink": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
}
ATLAS = Path(__file__).parents[2] / "assets" / "judge"
_COLUMNS = 16
# Icons whose picture is writing, a variant of another one, or a person: no use to a picture codec of this size.
_SKIPPED = re.compile(r"skin-tone|flag|oclock|thirty|keycap|button|person|woman|women|\bman\b|\bmen\b|-man|-woman|japanese")


def icon_set(name: str, folder: Path) -> dict:
    """The iconify JSON of one set, downloaded once with `npm pack` into `folder`."""
    package, version = SETS[name].rsplit("@", 1)
    archive = folder / f"{package.strip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", SETS[name]], cwd=folder, check=True, capture_output=True)
    with tarfile.open(archive) as tar:
        return json.load(tar.extractfile("package/icons.json"))


def svg(icons: dict, icon: str) -> str:
    """The whole SVG text of one icon of a set."""
    body = icons["icons"][icon]
    width, height = body.get("width", icons.get("width", 16)), body.get("height", icons.get("height", 16))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{body["body"]}</svg>'


def render(text: str, size: int = SIZE) -> np.ndarray:
    """An SVG as a premultiplied picture of `size` pixels, reduced from a larger rendering by Lanczos."""
    import resvg_py

    large = max(RENDER, size)
    data = bytes(resvg_py.svg_to_bytes(svg_string=text, width=large, height=large))
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), np.float32) / 255
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1)
    if size != large:
        planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.LANCZOS) for plane in rgba.transpose(2, 0, 1)]
        rgba = np.stack([np.asarray(plane) for plane in planes], -1).clip(0, 1)
    return np.concatenate([np.minimum(rgba[..., :3], rgba[..., 3:]), rgba[..., 3:]], -1)


def render_sets(work: Path) -> None:
    """Render every useful icon of the trained sets, and the concepts in all sets, into `work`/pictures.npz."""
    sets = {name: icon_set(name, work / "npm") for name in SETS}
    concepts = all_concepts()
    names = {concept.icon for concept in concepts}
    shared = [i for i in sets["noto"]["icons"] if i in sets["flat"]["icons"] and not _SKIPPED.search(i)]
    extra = [icon for icon in shared if icon not in names]
    arrays = {name: _stack(sets[name], [concept.icon for concept in concepts]) for name in SETS}
    arrays["extra"] = np.concatenate([_stack(sets["noto"], extra), _stack(sets["flat"], extra)])
    np.savez(work / "pictures.npz", **arrays)


def _stack(icons: dict, names: list[str]) -> np.ndarray:
    return np.stack([(render(svg(icons, name)) * 255).round().astype(np.uint8) for name in names])


def load_work(work: Path) -> dict[str, np.ndarray]:
    """The rendered sets of `render_sets`, as uint8 arrays (N, 64, 64, 4); `extra` has icons outside the concepts."""
    with np.load(work / "pictures.npz") as file:
        return {name: file[name] for name in file.files}


def save_atlas(pictures: dict[str, np.ndarray], folder: Path = ATLAS) -> None:
    """Write the concepts' pictures as one lossless sheet per set, small enough to ship."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        stack = pictures[name]
        rows = -(-len(stack) // _COLUMNS)
        sheet = np.zeros((rows * SIZE, _COLUMNS * SIZE, 4), np.uint8)
        for i, picture in enumerate(stack):
            y, x = i // _COLUMNS * SIZE, i % _COLUMNS * SIZE
            sheet[y : y + SIZE, x : x + SIZE] = _straight(picture)
        Image.fromarray(sheet).save(folder / f"{name}.webp", lossless=True, quality=100, method=6)


def load_atlas(folder: Path = ATLAS) -> dict[str, np.ndarray]:
    """The shipped pictures of every concept: set name -> float32 (N, 64, 64, 4), premultiplied."""
    count, atlas = len(all_concepts()), {}
    for name in SETS:
        sheet = np.asarray(Image.open(folder / f"{name}.webp").convert("RGBA"), np.float32) / 255
        rows = sheet.shape[0] // SIZE
        tiles = sheet.reshape(rows, SIZE, _COLUMNS, SIZE, 4).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 4)[:count]
        atlas[name] = np.concatenate([tiles[..., :3] * tiles[..., 3:], tiles[..., 3:]], -1)
    return atlas


def _straight(picture: np.ndarray) -> np.ndarray:
    """Premultiplied uint8 to the straight alpha that picture files use."""
    picture = picture.astype(np.float32)
    alpha = picture[..., 3:]
    colour = picture[..., :3] * 255 / np.maximum(alpha, 1)
    return np.concatenate([colour.clip(0, 255).round(), alpha], -1).astype(np.uint8)
