"""The trainer: accelerate, diffusers and files. Knows no GUI."""
