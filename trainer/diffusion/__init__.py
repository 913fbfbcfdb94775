"""Diffusion mathematics: tensors in, per-sample tensors out; no config, no models."""
