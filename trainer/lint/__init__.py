"""Faults in pictures and captions, before they are trained on.

``view`` and ``measures`` prepare a data set; every family of rules has a file: what is measured of one picture, and rules, pure
functions from the view to findings; ``registry`` names them; ``survey`` brings both together; ``report`` shows.
"""
