"""The recipe of the pocket base: a small text-to-image model trained from free emoji pictures.

`python -m bench.pocket prepare|vae|judge|unet|decoder|export|styles|report|sheet`; see docs/pocket.md.
"""
