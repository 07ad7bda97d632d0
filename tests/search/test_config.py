"""What an experiment's YAML may not say, and where the user is told that it does."""

from pathlib import Path

import pytest

from search.config import ExperimentConfig, load_config
from search.errors import ConfigError

GOOD = """\
name: tiny
output: out
dataset:
  sources:
    - folder: images
  positive: malignant
space:
  backbone: {choice: [cnn, resnet18]}
  lr: {low: 1e-4, high: 1e-2, log: true}
"""
METRICS = (
    "nll, brier, auroc, auprc, balanced_accuracy, partial_auroc, specificity_at_sensitivity, cost"
)


def load(folder: Path, text: str) -> ExperimentConfig:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return load_config(path)


def refusal(folder: Path, text: str) -> str:
    """The error's one line from the file's name on."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).removeprefix(f"{folder}/")


# Objectives, constraints, samplers


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("objective: aurok", f"10: objective: unknown objective 'aurok'; known are {METRICS}"),
        ("objective: 3", f"10: objective: unknown objective 3; known are {METRICS}"),
        (
            "objective: params_m",
            f"10: objective: unknown objective 'params_m'; known are {METRICS}",
        ),
        (
            "objective:\n  - nll\n  - speed",
            f"12: objective.1: unknown objective 'speed'; known are {METRICS}, params_m, latency_",
        ),
        ("objective: []", f"10: objective: unknown objective []; known are {METRICS}"),
        (
            "objective: cost",
            "10: objective: cost needs policy.cost_ratio; set it in place of the other",
        ),
        (
            "policy: {cost_ratio: 9}\nobjective: specificity_at_sensitivity",
            "11: objective: specificity_at_sensitivity needs policy.sensitivity; "
            "set it in place of the other",
        ),
        (
            "objective: [latency_ms, nll]",
            "10: objective: latency_ms, nll: name each once, a metric of the probabilities first, "
            "which is what trials are stopped by",
        ),
        (
            "objective: [nll, auroc, nll]",
            "10: objective: nll, auroc, nll: name each once, a metric of the probabilities first, "
            "which is what trials are stopped by",
        ),
        (
            "constraints: {ram_mb: 10}",
            "10: constraints.ram_mb: unknown key; known here: params_m, latency_ms, ece",
        ),
        (
            "constraints:\n  params_m: 5\n  ece: 0",
            "12: constraints.ece: Input should be greater than 0, but it is 0",
        ),
        (
            "constraints: {latency_ms: -1.5}",
            "10: constraints.latency_ms: Input should be greater than 0, but it is -1.5",
        ),
        (
            "sampler: tpee",
            "10: sampler: unknown sampler 'tpee'; known are tpe, gp, cmaes, nsga2, random, qmc",
        ),
        ("resources: {workers: 2, gpu: 0.5}", "10: resources: 2 workers need gpu 0 or 1 each, it"),
        ("audit:\n  leaks: ignore", "11: audit.leaks: unknown leaks 'ignore'; known are drop, err"),
    ],
)
def test_a_refusal_names_the_line_the_key_and_the_rule(
    tmp_path: Path, lines: str, message: str
) -> None:
    assert refusal(tmp_path, GOOD + lines + "\n").startswith(f"tiny.yaml:{message}")


@pytest.mark.parametrize("objective", ["specificity_at_sensitivity", "[nll, cost]"])
def test_an_objective_at_the_operating_point_needs_a_positive_class(
    tmp_path: Path, objective: str
) -> None:
    text = GOOD.replace("  positive: malignant\n", "") + f"objective: {objective}\n"
    name = objective.strip("[]").split(", ")[-1]
    assert refusal(tmp_path, text) == (
        f"tiny.yaml:9: objective: {name} needs a positive class; set dataset.positive"
    )


def test_one_objective_or_several_come_as_a_tuple(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).objectives == ("nll",)
    assert load(tmp_path, GOOD + "objective: partial_auroc\n").objectives == ("partial_auroc",)
    several = load(tmp_path, GOOD + "objective: [auroc, latency_ms, brier]\n").objectives
    assert several == ("auroc", "latency_ms", "brier")


def test_constraints_and_whole_gpus_for_several_workers_are_taken(tmp_path: Path) -> None:
    text = GOOD + "constraints: {ece: 0.1, params_m: 5}\nresources: {workers: 2, gpu: 1}\n"
    config = load(tmp_path, text)
    assert config.constraints == {"ece": 0.1, "params_m": 5}
    assert config.resources.workers == 2


# The space


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "  hidden:\n    choice: [0, 64]\n    when: {backbone: [vit_*]}",
            "10: space.hidden: when backbone is one of ['vit_*'], "
            "but backbone can only be cnn, resnet18",
        ),
        ("  hidden: {choice: [8, 8]}", "10: space.hidden: choice names 8 twice"),
        ("  hidden: [8, 16]", "10: space.hidden: give one value, a choice of several, or low and"),
        ("  dropout: {low: 0.5, high: 0.1}", "10: space.dropout: low 0.5 is above high 0.1"),
        ("  hiden: 8", "10: space.hiden: 'hiden' is not a param; the params are backbone, weights"),
        ("  hidden: {low: 8}", "10: space.hidden.high: this key is needed"),
        ("  hidden: {low: 8, high: 9, step: 1}", "10: space.hidden.step: unknown key"),
        (
            "  loss: hinge",
            "10: space.loss: loss cannot be 'hinge': Input should be 'cross_entropy'",
        ),
    ],
)
def test_the_line_of_an_impossible_rule_is_its_own(tmp_path: Path, rule: str, message: str) -> None:
    assert refusal(tmp_path, f"{GOOD}{rule}\nseed: 1\n").startswith(f"tiny.yaml:{message}")


def test_of_several_mistakes_the_mistyped_key_is_told(tmp_path: Path) -> None:
    text = GOOD.replace("name: tiny", "nmae: tiny") + "sampler: tpee\n"
    assert refusal(tmp_path, text).startswith("tiny.yaml:1: nmae: unknown key; known here: name")


def test_without_a_mistyped_key_the_first_mistake_is_told(tmp_path: Path) -> None:
    text = GOOD.replace("name: tiny", "name: a/b") + "objective: [nll, speed]\n"
    assert refusal(tmp_path, text).startswith("tiny.yaml:1: name: ")
