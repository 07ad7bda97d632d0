"""Calibrators are plain numbers that give probabilities and keep the order of images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ensemble.calibration.calibrators import (
    Beta,
    Calibrator,
    Identity,
    Platt,
    Structured,
    Temperature,
    Vector,
    VennAbers,
)
from tests.ensemble.calibration.simulated import honest, two_columns

READER: TypeAdapter[Calibrator] = TypeAdapter(Calibrator)
STEPS = VennAbers(column=1, scores=(0.2, 0.5, 0.9), p0=(0.0, 0.1, 0.6), p1=(0.3, 0.3, 0.8))
OF_TWO: list[Calibrator] = [
    Identity(),
    Temperature(temperature=2.5),
    Platt(column=1, a=0.7, b=-1.5),
    Beta(column=0, a=0.4, b=1.9, c=0.3),
    STEPS,
]
OF_THREE: list[Calibrator] = [
    Identity(),
    Temperature(temperature=0.4),
    Vector(scale=(1, 0.5, 2), bias=(0.1, 0, -1)),
    Structured(matrix=((1, 0.1, 0), (0, 0.5, -0.2), (0, 0, 2)), bias=(0.1, 0, -1)),
]
slopes = st.floats(0, 20)
intercepts = st.floats(-50, 50)
columns = st.integers(0, 1)


@st.composite
def step_functions(draw: st.DrawFn) -> VennAbers:
    shares = st.floats(0, 1)
    scores = sorted(draw(st.sets(shares, min_size=1, max_size=6)))
    ends = st.lists(st.floats(0, 0.98), min_size=len(scores), max_size=len(scores))
    p0, wider = sorted(draw(ends)), sorted(draw(ends))
    p1 = [low + (1 - low) * (0.01 + share) for low, share in zip(p0, wider, strict=True)]
    return VennAbers(
        column=draw(columns),
        scores=tuple(scores),
        p0=tuple(p0),
        p1=tuple(np.maximum.accumulate(np.minimum(p1, 1)).tolist()),
    )


of_two = st.one_of(
    st.builds(Temperature, temperature=st.floats(0.05, 20)),
    st.builds(Platt, column=columns, a=slopes, b=intercepts),
    st.builds(Beta, column=columns, a=slopes, b=slopes, c=intercepts),
    step_functions(),
)


@given(of_two, st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_two_images_never_change_their_order(calibrator: Calibrator, scores: list[float]) -> None:
    column = getattr(calibrator, "column", 1)
    probs = two_columns(np.sort(scores), column)
    calibrated = calibrator.apply(probs)[:, column]
    # exp() of two neighbouring floats may differ by its last bit in the wrong direction.
    slack = 1e-15 if not isinstance(calibrator, VennAbers) else 0
    assert (np.diff(calibrated) >= -slack * calibrated[1:]).all()


@pytest.mark.parametrize("calibrator", OF_TWO + OF_THREE, ids=lambda one: one.kind)
def test_it_is_read_back_from_json_as_it_was(calibrator: Calibrator) -> None:
    again = READER.validate_json(READER.dump_json(calibrator))
    assert again == calibrator
    probs, _ = honest(20, n_classes=2 if calibrator in OF_TWO else 3)
    assert (again.apply(probs) == calibrator.apply(probs)).all()


@pytest.mark.parametrize("calibrator", OF_TWO, ids=lambda one: one.kind)
def test_one_image_gets_what_it_gets_among_others(calibrator: Calibrator) -> None:
    probs, _ = honest(7)
    alone = np.concatenate([calibrator.apply(row[None]) for row in probs])
    np.testing.assert_allclose(alone, calibrator.apply(probs), rtol=1e-14)
    assert alone.dtype == np.float64


@pytest.mark.parametrize("calibrator", OF_TWO, ids=lambda one: one.kind)
def test_certainty_of_two_classes_stays_a_probability(calibrator: Calibrator) -> None:
    calibrated = calibrator.apply(np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    assert calibrated[0, 0] > calibrated[2, 0] > calibrated[1, 0]


@pytest.mark.parametrize("calibrator", OF_THREE, ids=lambda one: one.kind)
def test_certainty_of_three_classes_stays_a_probability(calibrator: Calibrator) -> None:
    calibrated = calibrator.apply(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    assert calibrated.argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "neutral",
    [
        Temperature(),
        Platt(column=1),
        Platt(column=0),
        Beta(column=0),
        Vector(scale=(1, 1), bias=(0, 0)),
        Structured(matrix=((1, 0), (0, 1)), bias=(0, 0)),
    ],
    ids=lambda one: one.kind,
)
def test_neutral_parameters_change_nothing(neutral: Calibrator) -> None:
    probs, _ = honest(20)
    np.testing.assert_allclose(neutral.apply(probs), probs, atol=1e-6)


def test_a_row_of_the_matrix_is_a_class_that_comes_out() -> None:
    takes = Structured(matrix=((1, 1), (0, 1)), bias=(0, 0))
    # Logits: log 0.2 + log 0.8 for the first class, log 0.8 for the second one.
    np.testing.assert_allclose(takes.apply(np.array([[0.2, 0.8]])), [[1 / 6, 5 / 6]])


def test_platt_and_beta_are_their_formulas_in_both_columns() -> None:
    probs = np.array([[0.1, 0.9]])
    expected = 1 / (1 + np.exp(-(2 * np.log(9) - 1)))
    np.testing.assert_allclose(Platt(column=1, a=2, b=-1).apply(probs), [[1 - expected, expected]])
    expected = 1 / (1 + np.exp(-(2 * np.log(0.1) - 3 * np.log(0.9) + 1)))
    beta = Beta(column=0, a=2, b=3, c=1)
    np.testing.assert_allclose(beta.apply(probs), [[expected, 1 - expected]])


def test_two_class_calibrators_refuse_three_columns() -> None:
    for calibrator in OF_TWO[2:]:
        with pytest.raises(ValueError, match=r"must be \(n_images, 2\), the shape is \(5, 3\)"):
            calibrator.apply(honest(5, n_classes=3)[0])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"kind": "platt", "column": 1, "a": NaN}', "less than or equal to"),
        ('{"kind": "platt", "column": 1, "a": -0.1}', "greater than or equal to 0"),
        ('{"kind": "beta", "column": 1, "c": Infinity}', "less than or equal to"),
        ('{"kind": "beta", "column": 2}', "less than or equal to 1"),
        ('{"kind": "temperature", "temperature": NaN}', "less than or equal to"),
        ('{"kind": "temperature", "temperature": 0}', "greater than or equal to"),
        ('{"kind": "vector", "scale": [1, 1], "bias": [0, NaN]}', "less than or equal to"),
        ('{"kind": "vector", "scale": [1, 1], "bias": [0, 0, 0]}', "scale has 2 values, bias"),
        ('{"kind": "structured", "matrix": [[1, 0], [0]], "bias": [0, 0]}', "at least 2 items"),
        ('{"kind": "structured", "matrix": [[1, 0], [0, 1]], "bias": [0, 0, 0]}', "do not fit"),
        ('{"kind": "forest"}', "does not match any of the expected tags"),
        ('{"kind": "identity", "more": 1}', "Extra inputs are not permitted"),
    ],
)
def test_parameters_that_no_fit_gives_are_refused(text: str, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        READER.validate_json(text)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"scores": (0.2, 0.2, 0.9)}, "scores must increase"),
        ({"p0": (0.0, 0.2, 0.1)}, "p0 and p1 must not decrease"),
        ({"p1": (0.3, 0.3)}, "of one length"),
        ({"p0": (0.0, 0.3, 0.6)}, "p0 must be below p1"),
        ({"p0": (0.0, float("nan"), 0.6)}, "less than or equal to 1"),
        ({"p1": (0.3, 0.3, 1.1)}, "less than or equal to 1"),
        ({"scores": tuple(np.linspace(0, 1, 100_001))}, "at most 100000 items"),
    ],
)
def test_step_functions_that_are_none_are_refused(change: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        VennAbers.model_validate({**STEPS.model_dump(), **change})
