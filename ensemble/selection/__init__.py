"""Which candidates become members: out-of-fold probabilities in, weights and their worth out."""
