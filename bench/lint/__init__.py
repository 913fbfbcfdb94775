"""Precision and recall of every lint rule on faults that are put into clean pictures on purpose."""
