"""Images that came out wrong, small, for the report."""

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.evaluation.assess import Cases
from ensemble.evaluation.results import Example
from search.data.images import open_image

SIDE = 120  # pixels


def worst_examples(cases: Cases, bundle: Bundle, *, count: int) -> list[Example]:
    """The images that came out wrong, those whose label got the least probability first.

    Of a bundle with operating points: misses and false alarms at the first one.

    Args:
        cases: with the images' files in the table's column path.
    """
    positive = bundle.positive_index
    own = cases.probs[np.arange(len(cases.labels)), cases.labels]
    if positive is not None:
        score = cases.probs[:, positive]
        own = np.where(cases.labels == positive, score, 1 - score)
    order = np.argsort(own, kind="stable")
    worst = order[_is_wrong(cases, bundle)[order]][:count]
    column = cases.probs.argmax(axis=1) if positive is None else np.full(len(own), positive)
    return [
        Example(
            image=str(cases.table["image"].iloc[i]),
            label=bundle.manifest.classes[cases.labels[i]],
            probability=float(cases.probs[i, column[i]]),
            thumbnail=_thumbnail(cases.table["path"].iloc[i]),
        )
        for i in worst
    ]


def _is_wrong(cases: Cases, bundle: Bundle) -> NDArray[np.bool_]:
    """(n_images,); an image that is referred is not wrong."""
    point, positive = bundle.operating_point(), bundle.positive_index
    if point is None or positive is None:
        wrong: NDArray[np.bool_] = cases.probs.argmax(axis=1) != cases.labels
        return wrong
    score = cases.probs if cases.decided_on is None else cases.decided_on
    against = np.where(cases.labels == positive, "negative", "positive")
    decided = np.array([point.decide(float(s)) for s in score[:, positive]])
    found: NDArray[np.bool_] = decided == against
    return found


def _thumbnail(path: str) -> str:
    image = open_image(path)
    image.thumbnail((SIDE, SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
