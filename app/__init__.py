"""The browser pages. Hold no training logic and import no torch: runs are child processes, and folders are what is read."""
