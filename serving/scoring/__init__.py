"""One replica's work.

In: image files. Out: predictions, and how a canary or a shadow bundle compares.
"""
