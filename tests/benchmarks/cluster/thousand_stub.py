"""Trials that train nothing: how long their epochs take, what they reach, and their records."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from search.params import Params
from search.study.records import StudyFolder, TrialRecord

# Of 400,000 images 0.2 are the test and 0.12 the calibration's; of the rest three folds in four are
# trained on, at 2,000 images/s, and one is predicted, at 6,000: assumptions, no GPU was measured.
EPOCH_S = 400_000 * 0.68 * (0.75 / 2000 + 0.25 / 6000)
SPREAD = 0.5  # of the logarithm of an epoch's seconds: backbones and sizes differ
METRICS = (
    "nll", "auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1",
    "brier", "ece", "threshold", "train_loss", "train_seconds", "val_seconds", "lr",
)  # fmt: skip


class StubTrial:
    """One trial, drawn by its number alone."""

    def __init__(self, number: int, params: Params, *, seed: int = 0) -> None:
        chance = np.random.default_rng([seed, number])
        self._floor = 0.25 + chance.exponential(0.1) + 0.05 * math.log10(params.lr / 1e-3) ** 2
        self._pace, self._chance = chance.uniform(0.3, 1.5), chance
        self.epoch_s = EPOCH_S * math.exp(chance.normal(0, SPREAD) - SPREAD**2 / 2)
        self.record = TrialRecord(
            number=number,
            status="running",
            params=params,
            fold=0,
            started=datetime(2026, 1, 1, tzinfo=UTC).isoformat(timespec="milliseconds"),
            worker=f"node{number % 125}:{number}",
        )

    def train(self) -> Mapping[str, float]:
        """Metrics of one epoch more; the NLL falls towards the trial's own floor."""
        number = len(self.record.epochs) + 1
        nll = self._floor + self._pace * 0.5 / number + self._chance.normal(0, 0.005)
        metrics = {**dict.fromkeys(METRICS, 0.5), "nll": nll, "train_seconds": self.epoch_s}
        update: dict[str, object] = {
            "epochs": [*self.record.epochs, metrics],
            "seconds": self.record.seconds + self.epoch_s,
        }
        if self.record.value is None or nll < self.record.value:
            update |= {"value": nll, "values": {"nll": nll}, "best_epoch": number}
        self.record = self.record.model_copy(update=update)
        return metrics

    def leave(self, folder: StudyFolder) -> None:
        """Write the record, as the worker would have done."""
        folder.write_record(self.record)
