"""The rules by name, in the order in which findings are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trainer.lint import borders, captions, duplicates, files, look, overlays, sharpness, sizes, tags, text
from trainer.lint.finding import Finding, Severity
from trainer.lint.view import View

Rule = Callable[[View], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "unusable": files.unusable,
    "duplicate": duplicates.duplicate,
    "near-duplicate": duplicates.near_duplicate,
    "leak": duplicates.leak,
    "small": sizes.small,
    "upscaled": sharpness.upscaled,
    "blurred": sharpness.blurred,
    "border": borders.border,
    "text": text.text,
    "overlay": overlays.overlay,
    "outlier": look.outlier,
    "conversion": files.conversion,
    "caption-missing": captions.caption_missing,
    "caption-empty": captions.caption_empty,
    "caption-odd": captions.caption_odd,
    "trigger": captions.trigger,
    "tokens": captions.tokens,
    "tag-common": tags.tag_common,
    "tag-rare": tags.tag_rare,
    "tag-look": tags.tag_look,
    "remainder": sizes.remainder,
}


def check(view: View) -> list[Finding]:
    """What all rules find, the gravest first."""
    found = [finding for rule in RULES.values() for finding in rule(view)]
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))
