"""scikit-learn's own calibrators on the same probabilities: what ours are set beside."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from ensemble.calibration.logits import log_probs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Apply = Callable[[Floats], Floats]
Method = Literal["temperature", "sigmoid", "isotonic"]


class Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose features are its log probabilities.

    Given predict_proba alone, scikit-learn would fit its sigmoid to probabilities.
    """

    def __init__(self, n_classes: int = 2) -> None:
        self.n_classes = n_classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> Ints:
        return np.arange(self.n_classes)

    def fit(self, *_: Any) -> "Logits":
        return self

    def decision_function(self, logs: Floats) -> Floats:
        """(n_images, n_classes); of two classes the second one's logit, (n_images,)."""
        return logs[:, 1] - logs[:, 0] if self.n_classes == 2 else logs

    def predict(self, logs: Floats) -> Ints:
        most_probable: Ints = logs.argmax(axis=1)
        return most_probable


def fit_plain(method: Method, probs: Floats, labels: Ints) -> Apply:
    """Fit on held-back images and return what maps (n_images, n_classes) to the same, calibrated.

    Every class must have an image; `sigmoid` and `isotonic` of more than two classes are
    one-against-the-rest and renormalised.
    """
    frozen = FrozenEstimator(Logits(probs.shape[1]))
    calibrated = CalibratedClassifierCV(frozen, method=method).fit(log_probs(probs), labels)

    def apply(others: Floats) -> Floats:
        mapped: Floats = calibrated.predict_proba(log_probs(others))
        return mapped

    return apply
