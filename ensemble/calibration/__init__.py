"""From pooled probabilities to calibrated ones: fits on held-back images, plain parameters out."""
