"""What to train, and training it.

In: an experiment's YAML and its images. Out: a study folder (see records.py).
"""
