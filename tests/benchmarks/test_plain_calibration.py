import pytest

from ensemble.calibration.calibrators import Kind, Platt, Temperature
from ensemble.calibration.fits import fit
from search.training.metrics import nll
from tests.benchmarks.plain_calibration import Method, fit_plain
from tests.ensemble.calibration.simulated import honest


@pytest.mark.parametrize(
    ("method", "kind", "n_classes"),
    [("temperature", "temperature", 2), ("temperature", "temperature", 5), ("sigmoid", "platt", 2)],
)
def test_scikit_learn_comes_to_nearly_the_same_loss(
    method: Method, kind: Kind, n_classes: int
) -> None:
    probs, labels = honest(1000, n_classes=n_classes)
    distorted = Temperature(temperature=0.4).apply(probs)
    if n_classes == 2:
        distorted = Platt(column=1, b=0.5).apply(distorted)
    plain = nll(fit_plain(method, distorted, labels)(distorted), labels)
    assert nll(distorted, labels) - plain > 0.02
    assert nll(fit(kind, distorted, labels).apply(distorted), labels) == pytest.approx(
        plain, abs=1e-3
    )
