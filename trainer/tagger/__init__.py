"""Captions written by a model that the user has on disk: BLIP, Florence-2 or a WD14 tagger. Nothing is downloaded."""
