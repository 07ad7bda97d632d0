"""Smooth calibration error: no bins whose edges decide the result.

Residuals (outcome minus probability) are laid on a fine grid and smoothed by a Gaussian that is
reflected at 0 and 1. In the cosine basis that is a product with exp(-(pi k sigma)^2 / 2).

Source: Błasiok & Nakkiran, "Smooth ECE: principled reliability diagrams via kernel smoothing",
ICLR 2024.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CELLS = 512
HALVINGS = 20  # of the interval [0, 1] that the bandwidth is in


def cells(confidence: Floats) -> Ints:
    """The cell of the grid on [0, 1] that each probability is in, 0 to 511."""
    return np.clip((confidence * CELLS).astype(np.int64), 0, CELLS - 1)


def smooth_ece(residuals: Floats) -> Floats:
    """The smooth calibration error at the bandwidth that equals it.

    The error never grows with the bandwidth, so the two meet once: found by halving.

    Args:
        residuals: sums of outcome minus probability by cell, divided by the images,
            (512, n_replicates).

    Returns:
        (n_replicates,), in [0, 1], to 1e-6.
    """
    waves = dct(residuals, axis=0)
    steepness = -((np.pi * np.arange(CELLS)) ** 2) / 2
    low, high = np.zeros(residuals.shape[1]), np.ones(residuals.shape[1])
    for _ in range(HALVINGS):
        sigma = (low + high) / 2
        smoothed = idct(waves * np.exp(steepness[:, None] * sigma**2), axis=0)
        above = np.abs(smoothed).sum(axis=0) > sigma
        low, high = np.where(above, sigma, low), np.where(above, high, sigma)
    return (low + high) / 2
