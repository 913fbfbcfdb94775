"""What a file for others tells of its training, by name. The page offers it, ``trainer.publish`` acts on it."""

from __future__ import annotations

ALL, NAMES, BARE = PRIVACY = ("all", "names", "bare")
"""Recipe, tags and the names of pictures and folders; the same without those names; only what programs need."""
