"""A table of images through a bundle, by Ray Data."""
