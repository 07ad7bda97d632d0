"""Images that came out wrong, small, for the report."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np

from ensemble.bundle import Bundle
from ensemble.evaluation.assess import Cases
from ensemble.evaluation.results import Example
from search.data.transforms import decode

SIDE = 120  # pixels


def worst_examples(cases: Cases, bundle: Bundle, *, count: int) -> list[Example]:
    """The images whose label got the least probability.

    Of a bundle with a positive class: of its probability, misses and false alarms alike.

    Args:
        cases: with the images' files in the table's column path.
    """
    positive = bundle.positive_index
    own = cases.probs[np.arange(len(cases.labels)), cases.labels]
    if positive is not None:
        score = cases.probs[:, positive]
        own = np.where(cases.labels == positive, score, 1 - score)
    worst = np.argsort(own, kind="stable")[:count]
    column = cases.probs.argmax(axis=1) if positive is None else np.full(len(own), positive)
    return [
        Example(
            image=str(cases.table["image"].iloc[i]),
            label=bundle.manifest.classes[cases.labels[i]],
            probability=float(cases.probs[i, column[i]]),
            thumbnail=_thumbnail(Path(cases.table["path"].iloc[i])),
        )
        for i in worst
    ]


def _thumbnail(path: Path) -> str:
    image = decode(path)
    image.thumbnail((SIDE, SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
