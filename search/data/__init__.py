"""From what the config names to images that may be trusted: read, audited, divided, decoded.

In: folders and tables of images. Out: a table of images in parts and folds, and a memory map of
their pixels.
"""
