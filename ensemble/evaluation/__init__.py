"""How good a bundle is: probabilities and labels in, numbers with intervals out."""
