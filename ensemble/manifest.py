"""bundle.json: what a bundle says it is, as types."""

import hashlib
import json
from typing import Any, Self

from pydantic import Field, model_validator

from ensemble.calibration.calibrators import Calibrator
from ensemble.config import Views
from ensemble.decision.points import OperatingPoint
from ensemble.profile import Profile
from search.data.transforms import Preprocessing
from search.document import located
from search.params import Config, Params

SCHEMA_VERSION = 2


class Network(Config):
    """One trained network of a member: of one fold, or refitted on all."""

    fold: int | None = Field(description="that it was not trained on; None: trained on all")
    weights_file: str = Field(description="safetensors, the canonical form")
    onnx_file: str = Field(description="built from it; uint8 pixels in, probs and features out")
    parity: float = Field(ge=0, description="largest difference of ONNX from torch at build")
    int8_file: str | None = Field(None, description="the same graph with 8-bit weights")
    int8_off: float | None = Field(None, description="its largest difference on held-back images")
    refit_seconds: float | None = Field(None, description="that training on all folds took")


class Member(Config):
    """A candidate that the ensemble asks; its networks' probabilities are averaged."""

    name: str
    trial: int
    recipe: str | None = None
    params: Params
    preprocessing: Preprocessing
    weight: float = Field(gt=0, le=1)
    networks: list[Network] = Field(min_length=1)
    params_m: float = Field(description="parameters of all its networks, in millions")
    latency_ms: float = Field(description="measured: one image, one CPU thread, all its networks")


class Survivors(Config):
    """What a service goes on with when only these members are left."""

    members: list[str]
    calibrator: Calibrator
    operating_points: list[OperatingPoint]


class Exit(Config):
    """Bounds at one operating point: outside of them the members asked so far decide."""

    point: str
    negative_below: float = Field(description="their calibrated probability is below: negative")
    positive_from: float = Field(description="it reaches this: positive")


class Stage(Config):
    """The members asked after one more was, and when that is enough."""

    members: list[str]
    exits: list[Exit]
    leaving: dict[str, float] = Field(description="share of held-back cases that stop here")


class Agreement(Config):
    """How often the cascade decides as the whole ensemble does, by operating point."""

    point: str
    disagreements: int
    n: int = Field(description="held-back cases, one image a group")
    at_most: float = Field(description="upper Clopper-Pearson bound of the share that disagrees")
    cost: float = Field(description="expected share of the whole ensemble's latency")


class Cascade(Config):
    """An order of members in which the later ones are asked only where it matters."""

    stages: list[Stage] = Field(description="all but the last, which is the whole ensemble")
    agreements: list[Agreement]
    confidence: float


class NovelKind(Config):
    """How well images of one kind, which are no lesions, are told."""

    kind: str
    n: int
    auroc: float = Field(description="of the distance, against held-back cases")
    flagged: float = Field(description="share beyond the threshold")


class Novelty(Config):
    """Distance to the k-th nearest training image in one network's features.

    Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
    """

    member: str
    network: int = Field(description="index among the member's networks")
    reference_file: str = Field(description="safetensors: reference, (n, d) rows of length 1")
    k: int = Field(ge=1)
    threshold: float = Field(description="flagged where the distance is above")
    flagged_held_back: float = Field(description="share of held-back cases beyond the threshold")
    measured: list[NovelKind] = Field(description="on images that are not lesions")


class Manifest(Config):
    """bundle.json."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: str
    classes: list[str]
    positive: str | None
    members: list[Member] = Field(min_length=1)
    test_time_augmentation: Views = "none"
    calibrator: Calibrator
    operating_points: list[OperatingPoint]
    survivors: list[Survivors] = Field(default=[], description="by subset of members that are left")
    cascade: Cascade | None = None
    prevalence: dict[str, float] = Field(
        description="share of each class where the calibrator was fitted"
    )
    out_of_distribution: Novelty | None = None
    profile: Profile | None = Field(None, description="of held-back images, to tell drift by")
    seen_file: str | None = Field(None, description="the images that it was made from, hashed")
    gates: list[str] = Field(default=[], description="that failed and were overridden by --force")
    provenance: dict[str, Any]
    files: dict[str, str] = Field(description="SHA-256 of every file but this one")

    digest: str = Field("", description="SHA-256 of all else in this file, and so of the bundle")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [member.name for member in self.members]
        novelty = self.out_of_distribution
        rules = {
            "classes": len(set(self.classes)) == len(self.classes) > 1,
            "positive": self.positive in (None, *self.classes),
            "prevalence": not self.prevalence or list(self.prevalence) == self.classes,
            "members": len(set(names)) == len(names)
            and abs(sum(member.weight for member in self.members) - 1) < 1e-6,
            "out_of_distribution": novelty is None or novelty.member in names,
            "profile": self.profile is None or self.profile.member in names,
            "survivors": all(set(left.members) < set(names) for left in self.survivors),
        }
        for where, holds in rules.items():
            if not holds:
                raise located(ValueError(f"{where} does not fit the rest"), where)
        return self

    def sealed_text(self) -> str:
        """What bundle.json holds: all fields, and the digest of all others."""
        return canonical(self.model_dump(mode="json"))


def canonical(document: dict[str, Any]) -> str:
    """A manifest's text: its own fields, so that a later version can check it, and the digest."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return _json({**rest, "digest": hashlib.sha256(_json(rest).encode()).hexdigest()})


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
