"""One trial on one fold, without Ray: params and pixels in, probabilities and weights out."""
