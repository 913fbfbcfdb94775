"""Rules ``unusable`` and ``conversion``: files that cannot be read, and what was done to those that can."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.data import images
from trainer.lint.finding import Finding, Severity
from trainer.lint.view import View

CONVERSIONS = {
    images.ANIMATED: (Severity.INFO, "animated or of several pages: its first frame is used", "save the frame that you mean"),
    images.TRANSPARENT: (
        Severity.INFO, "transparent: data.background is put under it", "flatten it onto the ground you want to be learnt",
    ),
    images.CMYK: (Severity.WARNING, "in CMYK without a colour profile: its colours are approximate", "save it as sRGB"),
    images.PROFILE: (Severity.WARNING, "with a colour profile that does not fit: taken as sRGB", "save it as sRGB"),
    images.EXIF: (Severity.WARNING, "with damaged EXIF data: perhaps it is not upright", "turn it upright and save it again"),
}  # fmt: skip
"""What decoding may have done to a picture: how bad it is, what it is, what to do."""


def unusable(view: View) -> Iterator[Finding]:
    """Files that are no pictures or captions though they should be: training refuses to start with them."""
    for name, reason in view.unusable:
        yield Finding("unusable", Severity.ERROR, (name,), reason, "repair or replace it, or take it out of the folder")


def conversion(view: View) -> Iterator[Finding]:
    """Alpha, EXIF, colour profiles and frames that were resolved in a way that the user may not want."""
    for remark, (severity, problem, fix) in CONVERSIONS.items():
        names = tuple(picture.name for picture in view.pictures if remark in picture.remarks)
        if names:
            yield Finding("conversion", severity, names, problem, fix)
