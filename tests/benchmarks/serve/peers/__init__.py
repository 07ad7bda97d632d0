"""Other servers of the same members: a raw image in, JSON probabilities out."""
