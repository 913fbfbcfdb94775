"""Masks from files and from alpha channels, by their values."""

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.pictures import save, settings
from trainer.config import Config
from trainer.data import masks, scan
from trainer.errors import InputError

VALUES = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)


def refused(config) -> str:
    with pytest.raises(InputError) as caught:
        scan(config)
    return str(caught.value)


def picture(folder, name):
    return save(folder, name, (48, 64), caption="x")


def mask(file, values=VALUES):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def mask_of(item):
    return masks.load(item.path, item.mask, item.size)


@pytest.mark.parametrize("place", ["a.mask.png", "a-masklabel.tif", "masks/a.png", "mask/a.bmp"])
def test_masks_are_found_beside_their_picture(tmp_path, place):
    picture(tmp_path, "a.png")
    picture(tmp_path, "b.png")
    mask(tmp_path / place)
    dataset = scan(settings(tmp_path, mask="files"))
    assert [item.mask for item in dataset.items] == [tmp_path / place, None]
    assert np.array_equal(mask_of(dataset.items[0]), VALUES)
    assert "1 of 2 pictures with a mask" in dataset.notes
    assert "1 picture without a mask, taken as a whole: b.png" in dataset.notes
    assert not [note for note in dataset.notes if "subfolders" in note]


@pytest.mark.acts("data.mask_folder")
def test_masks_in_a_folder_of_their_own(tmp_path):
    picture(tmp_path / "img", "a.png")
    picture(tmp_path / "img" / "more", "a.png")
    mask(tmp_path / "elsewhere" / "a.png")
    mask(tmp_path / "elsewhere" / "more" / "a.png", 255 - VALUES)
    config = settings(tmp_path / "img", mask="files", mask_folder=str(tmp_path / "elsewhere"), recursive=True)
    assert [mask_of(item)[5, 5] for item in scan(config).items] == [VALUES[5, 5], 255 - VALUES[5, 5]]


@pytest.mark.acts("data.mask")
def test_the_alpha_channel_is_the_mask_where_that_is_asked_for(tmp_path):
    Image.fromarray(np.dstack([VALUES, VALUES, VALUES, 255 - VALUES])).save(tmp_path / "a.png")
    picture(tmp_path, "b.png")
    dataset = scan(settings(tmp_path, mask="alpha"))
    assert [item.mask for item in dataset.items] == [tmp_path / "a.png", None]
    assert np.array_equal(mask_of(dataset.items[0]), 255 - VALUES)


def test_a_mask_turns_with_its_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.rot90(np.dstack([VALUES] * 4), 1)
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    item = scan(settings(tmp_path, mask="alpha")).items[0]
    assert item.size == (48, 64) and np.array_equal(mask_of(item), VALUES)


def test_a_mask_of_another_size_is_scaled_to_the_picture(tmp_path):
    picture(tmp_path, "a.png")
    mask(tmp_path / "a.mask.png", np.repeat([[0, 255]], 4, 0).astype(np.uint8).repeat(8, 0).repeat(12, 1))
    values = mask_of(scan(settings(tmp_path, mask="files")).items[0])
    assert values.shape == (64, 48)
    assert not values[:, :22].any() and (values[:, 26:] == 255).all()


def test_a_mask_of_another_shape_is_refused_by_name(tmp_path):
    picture(tmp_path, "a.png")
    mask(tmp_path / "a.mask.png", VALUES.T.copy())
    assert "a.mask.png: is 64x48, another shape than its picture of 48x64" in refused(settings(tmp_path, mask="files"))


def test_a_damaged_mask_is_refused_by_name(tmp_path):
    picture(tmp_path, "a.png")
    (tmp_path / "a.mask.png").write_bytes(b"")
    assert "a.mask.png: is empty (0 bytes)" in refused(settings(tmp_path, mask="files"))


def test_a_black_mask_is_said(tmp_path):
    picture(tmp_path, "a.png")
    mask(tmp_path / "a.mask.png", VALUES * 0)
    notes = scan(settings(tmp_path, mask="files")).notes
    assert "1 picture with a mask that is black all over: nothing is learned from it: a.png" in notes


def test_masks_that_are_not_asked_for_are_no_pictures_and_are_said(tmp_path):
    picture(tmp_path, "a.png")
    mask(tmp_path / "a.mask.png")
    dataset = scan(settings(tmp_path))
    assert [item.path.name for item in dataset.items] == ["a.png"] and dataset.items[0].mask is None
    assert "1 mask not used (data.mask = none): a.mask.png" in dataset.notes


@pytest.mark.parametrize(("way", "what"), [("alpha", "no picture is transparent"), ("files", "there is no mask file")])
def test_masks_that_are_nowhere_are_an_error(tmp_path, way, what):
    picture(tmp_path, "a.png")
    assert f"data.mask = '{way}', but {what}" in refused(settings(tmp_path, mask=way))


def test_a_mask_is_part_of_the_fingerprint(tmp_path):
    picture(tmp_path, "a.png")
    mask(tmp_path / "a.mask.png")
    one = scan(settings(tmp_path, mask="files")).fingerprint
    mask(tmp_path / "a.mask.png", 255 - VALUES)
    assert scan(settings(tmp_path, mask="files")).fingerprint != one


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        ({"images": "a", "mask_folder": "m"}, False),
        ({"images": "a", "mask_folder": "m", "mask": "files"}, True),
        ({"sources": [{"path": "a", "mask": "files"}], "mask_folder": "m"}, True),
        ({"sources": [{"path": "a", "mask_folder": "m"}]}, False),
    ],
)
def test_a_folder_of_masks_needs_masks_from_files(data, accepted):
    if accepted:
        Config.model_validate({"data": data})
    else:
        with pytest.raises(ValueError, match="mask_folder has no effect"):
            Config.model_validate({"data": data})
