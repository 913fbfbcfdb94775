"""What an adapter is as a matrix: ranks, spectra, subspaces, amplification, and what each algorithm costs."""
