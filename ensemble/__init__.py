"""From a study to one calibrated, portable bundle.

In: a study folder. Out: a bundle folder (see bundle.py).
"""
